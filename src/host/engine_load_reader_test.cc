// Pages of engines as they are, and what must not be taken for a number.
#include "host/engine_load_reader.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "host/metrics.h"

namespace heng {
namespace {

Result<EngineLoad> read(std::string_view page, std::size_t cut = std::string_view::npos) {
  EngineLoadReader reader;
  reader.begin();
  for (; page.size() > cut; page.remove_prefix(cut)) reader.take(page.substr(0, cut));
  reader.take(page);
  return reader.finish();
}

void expect_load(std::string_view page, float running, float waiting, float kv_used) {
  const Result<EngineLoad> load = read(page);
  ASSERT_TRUE(load) << load.error().message;
  EXPECT_FLOAT_EQ(load->running, running);
  EXPECT_FLOAT_EQ(load->waiting, waiting);
  EXPECT_FLOAT_EQ(load->kv_used, kv_used);
  EXPECT_FALSE(load->known());  // whoever reads the page knows when
}

constexpr std::string_view kVllm =
    R"(# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 17.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 4.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 0.25
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf"} 9.0
)";

TEST(EngineLoadReader, ReadsVllm) { expect_load(kVllm, 17, 4, 0.25); }

TEST(EngineLoadReader, ReadsOlderVllmAndPrefersTheNewerName) {
  expect_load("vllm:num_requests_running 1\nvllm:num_requests_waiting 0\nvllm:gpu_cache_usage_perc 0.5\n", 1,
              0, 0.5);
  expect_load(
      "vllm:gpu_cache_usage_perc 0.5\nvllm:num_requests_running 1\nvllm:num_requests_waiting 0\n"
      "vllm:kv_cache_usage_perc 0.75\n",
      1, 0, 0.75);
}

TEST(EngineLoadReader, AddsUpTheEnginesOfADataParallelServer) {
  std::string page;
  for (int engine = 0; engine < 4; ++engine) {
    page += fmt::format("vllm:num_requests_running{{engine=\"{0}\",model_name=\"m\"}} {0}\n", engine);
    page += fmt::format("vllm:num_requests_waiting{{engine=\"{0}\",model_name=\"m\"}} 1e+01\n", engine);
    page += fmt::format("vllm:kv_cache_usage_perc{{engine=\"{0}\",model_name=\"m\"}} 0.{0}\n", engine);
  }
  expect_load(page, 6, 40, 0.15f);
}

TEST(EngineLoadReader, ReadsSglangWithEachRequestCountedOnce) {
  // Two data-parallel engines; of the first, two parts tell the same; with priorities the sum is told too.
  expect_load(R"(sglang:num_running_reqs{dp_rank="0",pid="11",pp_rank="0",priority="",tp_rank="0"} 3.0
sglang:num_running_reqs{dp_rank="0",pid="12",pp_rank="1",priority="",tp_rank="0"} 3.0
sglang:num_running_reqs{dp_rank="0",pid="11",pp_rank="0",priority="5",tp_rank="0"} 2.0
sglang:num_running_reqs{dp_rank="0",pid="11",pp_rank="0",priority="1",tp_rank="0"} 1.0
sglang:num_running_reqs{dp_rank="1",pid="13",pp_rank="0",priority="",tp_rank="1"} 4.0
sglang:num_queue_reqs{dp_rank="0",pid="11"} 0.0
sglang:num_queue_reqs{dp_rank="1",pid="13"} 7.0
sglang:token_usage{dp_rank="0",pid="11"} 0.2
sglang:token_usage{dp_rank="0",pid="12"} 0.2
sglang:token_usage{dp_rank="1",pid="13"} 0.6
)",
              7, 7, 0.4f);
}

TEST(EngineLoadReader, ReadsLlamaServerWithAndWithoutItsCache) {
  constexpr std::string_view kPage =
      "# HELP llamacpp:requests_processing Number of requests processing.\n"
      "# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 4\n"
      "llamacpp:requests_deferred 46\n";
  expect_load(kPage, 4, 46, 0);
  expect_load(std::string(kPage) + "llamacpp:kv_cache_usage_ratio 0.125\n", 4, 46, 0.125);
}

TEST(EngineLoadReader, ReadsTgi) { expect_load("tgi_batch_current_size 8\ntgi_queue_size 2\n", 8, 2, 0); }

TEST(EngineLoadReader, ReadsWhatOurOwnRegistryWrites) {
  MetricRegistry registry;
  const MetricLabels odd = {{"model_name", "a \"quoted\\\" } name\nof two lines"}};
  registry.gauge("vllm:num_requests_running", "x", odd).set(2);
  registry.gauge("vllm:num_requests_waiting", "x", odd).set(1);
  registry.gauge("vllm:kv_cache_usage_perc", "x", odd).set(0.5);
  expect_load(registry.expose(), 2, 1, 0.5);
}

TEST(EngineLoadReader, TakesEverythingTheFormatAllows) {
  expect_load(
      "vllm:num_requests_running { a = \"}\" , b=\"\\\"{\", } \t 5 1760000000000 \r\n\n\n"
      "vllm:num_requests_waiting{} 0\nvllm:kv_cache_usage_perc 1.02\n# no end of line",
      5, 0, 1);
}

TEST(EngineLoadReader, BelievesNoPageWithABadLineOfItsOwn) {
  for (const std::string_view line :
       {"vllm:num_requests_running NaN", "vllm:num_requests_running +Inf", "vllm:num_requests_running -1",
        "vllm:num_requests_running 1e9", "vllm:num_requests_running", "vllm:num_requests_running x",
        "vllm:num_requests_running 3x", "vllm:num_requests_running 3 4 x", "vllm:num_requests_running{ 3",
        "vllm:num_requests_running{a=\"b} 3", "vllm:num_requests_running{a=\"b\\\"} 3",
        "vllm:num_requests_running{a=\"b\" c=\"d\"} 3", "vllm:num_requests_running{a} 3",
        "vllm:num_requests_running{=\"b\"} 3", "vllm:num_requests_running{a=b} 3"}) {
    const Result<EngineLoad> load = read(fmt::format("{}{}\n", kVllm, line));
    ASSERT_FALSE(load) << line;
    EXPECT_EQ(load.error().message, "`vllm:num_requests_running` on it cannot be read") << line;
  }
  // The same of others is nobody's business.
  EXPECT_TRUE(read(fmt::format("{}other NaN\nother{{ 3\n=\n", kVllm)));
}

TEST(EngineLoadReader, WantsWhatRunsAndWhatWaits) {
  for (const std::string_view page :
       {"", "up 1\n", "vllm:num_requests_running 1\n", "vllm:num_requests_waiting 1\n",
        "#vllm:num_requests_running 1\nvllm:num_requests_waiting 1\n",
        "xvllm:num_requests_running 1\nvllm:num_requests_waiting 1\n", "<html>\n"}) {
    const Result<EngineLoad> load = read(page);
    ASSERT_FALSE(load) << page;
    EXPECT_EQ(load.error().code, ErrorCode::not_found);
  }
}

TEST(EngineLoadReader, APageThatWasCutOffIsNone) {
  const std::string page = "vllm:num_requests_running 1\nvllm:num_requests_waiting 123\n";
  EXPECT_TRUE(read(page));
  for (std::size_t size = 0; size < page.size(); ++size) EXPECT_FALSE(read(page.substr(0, size))) << size;
}

TEST(EngineLoadReader, LinesTooLongAreSkippedUnlessTheyMatter) {
  const std::string filler(EngineLoadReader::kLineMax, 'x');
  expect_load(fmt::format("other{{a=\"{}\"}} 1\n{}", filler, kVllm), 17, 4, 0.25);
  EXPECT_FALSE(read(fmt::format("vllm:num_requests_running{{a=\"{}\"}} 1\n{}", filler, kVllm)));
  EXPECT_FALSE(read(fmt::format("{}other{}", kVllm, filler)));
}

TEST(EngineLoadReader, AnUnlikelyNumberOfEnginesIsNotBelieved) {
  std::string page(kVllm);
  for (int i = 0; i < 300; ++i) page += fmt::format("vllm:num_requests_running{{engine=\"x{}\"}} 1\n", i);
  EXPECT_FALSE(read(page));
}

TEST(EngineLoadReader, BeginsAnew) {
  EngineLoadReader reader;
  reader.begin();
  reader.take("vllm:num_requests_running 1\nvllm:num_requests_waiting NaN\nhalf a li");
  EXPECT_FALSE(reader.finish());
  reader.begin();
  reader.take(kVllm);
  const Result<EngineLoad> load = reader.finish();
  ASSERT_TRUE(load);
  EXPECT_EQ(load->running, 17);
}

RC_GTEST_PROP(EngineLoadReaderProperty, CutsDoNotMatter, (std::vector<std::uint8_t> picks)) {
  // Pages out of pieces that matter, and of one line about as long as lines may be.
  const std::string long_value(EngineLoadReader::kLineMax - 34, 'x');
  const std::string_view pieces[] = {"vllm:num_requests_running",
                                     "vllm:num_requests_waiting",
                                     " 1",
                                     "{a=\"b\"}",
                                     "\n",
                                     "\n",
                                     "\r\n",
                                     "# x",
                                     long_value,
                                     "{a=\"",
                                     "\"} 2",
                                     " 3",
                                     "\\"};
  std::string page;
  for (const std::uint8_t pick : picks) page += pieces[pick % std::size(pieces)];
  const Result<EngineLoad> whole = read(page);
  for (const std::size_t cut : {1, 2, 3, 7, 1000, 16384, 16385}) {
    const Result<EngineLoad> again = read(page, cut);
    RC_ASSERT(again.has_value() == whole.has_value());
    if (whole) {
      RC_ASSERT(again->running == whole->running && again->waiting == whole->waiting);
    } else {
      RC_ASSERT(again.error().message == whole.error().message);
    }
  }
}

}  // namespace
}  // namespace heng
