// Traffic: every format with its mistakes, the shapes it can be brought into, and what is made up.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "base/hash.h"
#include "sim/traffic/shape.h"
#include "sim/traffic/synthetic.h"
#include "sim/traffic/trace.h"

namespace heng {
namespace {

class TraceFile : public testing::Test {
 protected:
  ~TraceFile() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& text, const std::string& name = "trace") {
    std::filesystem::create_directory(folder_);
    std::ofstream(folder_ / name) << text;
    return folder_ / name;
  }
  std::vector<TrafficRequest> read(const std::string& path, std::uint64_t seed = 1) {
    const auto source = open_trace(path, seed);
    EXPECT_TRUE(source.has_value()) << (source ? "" : source.error().message);
    return source ? drain(**source) : std::vector<TrafficRequest>();
  }
  static std::vector<TrafficRequest> drain(TrafficSource& source) {
    std::vector<TrafficRequest> all;
    for (TrafficRequest request;;) {
      const Result<bool> more = source.next(request);
      EXPECT_TRUE(more.has_value()) << (more ? "" : more.error().message);
      if (!more || !*more) return all;
      all.push_back(request);
    }
  }
  /// Without the folder.
  std::vector<std::string> warnings(const std::string& path) {
    std::vector<std::string> all;
    const auto source = open_trace(
        path, 1, [&](const std::string& text) { all.push_back(text.substr(text.find("trace:"))); });
    EXPECT_TRUE(source.has_value());
    drain(**source);
    return all;
  }
  /// The first mistake, without the folder.
  std::string mistake(const std::string& text) {
    const std::string path = write(text);
    const auto source = open_trace(path, 1);
    std::string message = source ? "" : source.error().message;
    for (TrafficRequest request; source && message.empty();) {
      const Result<bool> more = (*source)->next(request);
      if (!more) message = more.error().message;
      if (more && !*more) break;
    }
    const std::size_t at = message.find("trace:");
    return at == message.npos ? message : message.substr(at);
  }

  std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("heng-traffic-" + std::to_string(getpid()));
};

TEST_F(TraceFile, Azure) {
  const auto all =
      read(write("TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
                 "2023-11-16 18:15:46.6805900,374,44\r\n"
                 "2023-11-16 18:15:50.9951690,396,109\r\n"
                 "2023-11-17 18:15:50.9951690,1,0"));
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].at, 0ns);
  EXPECT_EQ(all[1].at, 4314579us);
  EXPECT_EQ(all[2].at - all[1].at, 24h);
  EXPECT_EQ(all[1].prompt_tokens, 396u);
  EXPECT_EQ(all[1].output_tokens, 109u);
}

TEST_F(TraceFile, AzureOf2024HasAZone) {
  const auto all =
      read(write("TIMESTAMP,ContextTokens,GeneratedTokens\n"
                 "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01+00:00,2,5\n"));
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[1].at, 990'070us);
}

TEST_F(TraceFile, MooncakeBlocksArePrefixes) {
  const auto all =
      read(write(R"({"timestamp": 0, "input_length": 1030, "output_length": 5, "hash_ids": [0, 1, 2]})"
                 "\n"
                 R"({"timestamp": 1500, "input_length": 600, "output_length": 7, "hash_ids": [0, 9]})"
                 "\n"));
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[1].at, 1500ms);
  const auto a = block_chain(all[0].pieces, 16), b = block_chain(all[1].pieces, 16);
  ASSERT_EQ(a.size(), 64u);
  ASSERT_EQ(b.size(), 37u);
  for (std::size_t i = 0; i < 37; ++i) EXPECT_EQ(a[i] == b[i], i < 32) << i;
}

TEST_F(TraceFile, OwnLinesWithPiecesAndSessions) {
  const auto all =
      read(write(R"({"arrival_s": 10.5, "prompt_tokens": 100, "output_tokens": 5, "session": "x", )"
                 R"("prefix": [["s", 64], [3, 50]]})"
                 "\n\n"
                 R"({"arrival_s": 11, "prompt_tokens": 100, "output_tokens": 5, "session": 7, )"
                 R"("hash_ids": ["a"], "block_tokens": 32, "stream": false})"
                 "\n"));
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[1].at, 500ms);
  EXPECT_NE(all[0].client, 0u);
  ASSERT_EQ(all[0].pieces.size(), 2u);
  EXPECT_EQ(all[0].pieces[1].tokens, 50u);
  EXPECT_EQ(all[1].pieces.at(0).tokens, 32u);
  EXPECT_EQ(all[0].stream, std::nullopt);
  EXPECT_EQ(all[1].stream, false);
}

TEST_F(TraceFile, AccessLogIsSortedByArrival) {
  const auto line = [](double time, double took, const char* end, int prompt, const char* stream = "true") {
    return R"({"time":)" + std::to_string(time) + R"(,"id":"x","client":"10.0.0.1","status":200,"end":")" +
           end + R"(","stream":)" + stream + R"(,"duration_ms":)" + std::to_string(took) +
           R"(,"bytes_in":400,"prompt_tokens":)" + std::to_string(prompt) + R"(,"output_tokens":3})" + "\n";
  };
  const auto all = read(write(line(1700000010, 9000, "completed", 50) + line(1700000011, 100, "refused", 0) +
                              line(1700000012, 12000, "completed", 60, "false") +
                              line(1700000013, 500, "failed", 0, "false")));
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].prompt_tokens, 60u);
  EXPECT_EQ(all[1].at, 1s);
  EXPECT_EQ(all[2].at, 12500ms);
  EXPECT_EQ(all[2].prompt_tokens, 100u);  // 400 bytes, no usage
  EXPECT_EQ(all[0].stream, false);
  EXPECT_EQ(all[1].stream, true);
  EXPECT_EQ(all[2].stream, std::nullopt) << "there was no answer";
}

TEST_F(TraceFile, UnknownKeysAreToldOnceEach) {
  const std::string line =
      R"({"arrival_s": 1, "prompt_tokens": 9, "output_tokens": 5, "sesion": 7, "model": ""})";
  EXPECT_EQ(warnings(write(line + "\n" + line + "\n")),
            (std::vector<std::string>{"trace:1: a request has no key 'sesion'; it is passed over",
                                      "trace:1: a request has no key 'model'; it is passed over"}));
  EXPECT_TRUE(
      warnings(write(R"({"timestamp": 0, "input_length": 1, "output_length": 5, "hash_ids": [0]})")).empty());
}

TEST_F(TraceFile, LastLineOfAnAccessLogMayBeUnfinished) {
  const std::string line = R"({"time":1700000010,"end":"completed","duration_ms":5,"bytes_in":400,)"
                           R"("prompt_tokens":7,"output_tokens":3})";
  for (const std::string& torn : {line.substr(0, 30), line.substr(0, line.size() - 1)}) {
    const std::string path = write(line + "\n" + torn);
    EXPECT_EQ(read(path).size(), 1u);
    EXPECT_EQ(warnings(path),
              std::vector<std::string>{"trace:2: the last line is unfinished; it is passed over"});
    EXPECT_THAT(mistake(line + "\n" + torn + "\n" + line + "\n"), testing::HasSubstr("trace:2: not JSON"));
  }
  EXPECT_THAT(mistake(line + "\n{\"time\":x}"), testing::HasSubstr("trace:2: not JSON"));
}

TEST_F(TraceFile, RecordingHasThePromptsAndTheirBeginnings) {
  const std::string run = R"({"do":"run","process":7,"at":1000000000,"version":1,"time":100,"program":"x"})";
  const auto came = [](int request, int at) {
    return fmt::format(R"({{"do":"request","process":7,"at":{}000000000,"request":{},"id":"r"}})", at,
                       request);
  };
  const auto reserve = [](int request, const char* prefix) {
    return fmt::format(
        R"({{"do":"reserve","process":7,"at":5,"pool":1,"worker":0,"request":{},)"
        R"("affinity":9,"prompt_tokens":100,"stream":true,"block_tokens":63.6,"prefix":"{}"}})",
        request, prefix);
  };
  const auto end = [](int request, int outcome, int prompt, int output) {
    return fmt::format(R"({{"do":"end","process":7,"at":6,"pool":1,"worker":0,"request":{},"outcome":{},)"
                       R"("prompt_tokens":{},"output_tokens":{}}})",
                       request, outcome, prompt, output);
  };
  const auto done = [](int request) {
    return fmt::format(R"({{"do":"done","process":7,"at":7,"request":{}}})", request);
  };
  const std::string a = "000000000000000a", b = "000000000000000b", c = "000000000000000c";
  std::string text = run + "\n";
  for (const std::string& line :
       {came(1, 2), reserve(1, (a + b).c_str()), came(2, 3), reserve(2, (a + c).c_str()),
        came(3, 4),                           // refused
        done(3), end(2, 0, 100, 8), done(2),  // before the first, which ...
        end(1, 5, 100, 0), reserve(1, (a + b).c_str()), end(1, 0, 200, 5), done(1),  // ... failed once
        came(4, 9), reserve(4, a.c_str()), end(4, 0, 70, 1), std::string("{\"do\":\"do")})
    text += line + "\n";
  const auto all = read(write(text));
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].at, 0s);
  EXPECT_EQ(all[1].at, 1s);
  EXPECT_EQ(all[2].at, 7s) << "its process was killed, but its answer had come";
  EXPECT_EQ(all[0].prompt_tokens, 200u);
  EXPECT_EQ(all[0].output_tokens, 5u);
  EXPECT_EQ(all[0].client, 9u);
  EXPECT_EQ(all[0].stream, true);
  const auto pieces = [&](std::size_t i) {
    std::vector<std::pair<std::uint64_t, std::uint32_t>> found;
    for (const PromptPiece& piece : all[i].pieces) found.emplace_back(piece.id, piece.tokens);
    return found;
  };
  using Pieces = std::vector<std::pair<std::uint64_t, std::uint32_t>>;
  // And what no other has: the rests of the prompts, with the answers.
  EXPECT_EQ(pieces(0), (Pieces{{10, 96}, {11, 64}, {mix(1), 45}}));
  EXPECT_EQ(pieces(1), (Pieces{{10, 96}, {12, 4}, {mix(2), 8}}));
  EXPECT_EQ(pieces(2), (Pieces{{10, 70}, {mix(3), 1}}));
}

TEST_F(TraceFile, MistakesHaveTheirLine) {
  const std::string azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n";
  EXPECT_EQ(mistake(azure + "2023-11-16 18:15:46.67,1,1\n"),
            "trace:3: the time goes back by 0.01 s; sort the file by time");
  EXPECT_EQ(mistake(azure + "2023-13-16 18:15:46,1,1\n"),
            "trace:3: '2023-13-16 18:15:46' is not a time like 2023-11-16 18:17:03.9799600");
  EXPECT_EQ(mistake(azure + "2023-11-16 18:15:47,1.5,1\n"),
            "trace:3: ContextTokens is not a whole number: '1.5'");
  EXPECT_EQ(mistake(azure + "2023-11-16 18:15:47,1\n"),
            "trace:3: expected TIMESTAMP,ContextTokens,GeneratedTokens");
  EXPECT_EQ(mistake(R"({"timestamp": 0, "input_length": -1, "output_length": 5})"),
            "trace:1: the prompt's length is -1; a number of tokens is whole and at most 16777216");
  EXPECT_EQ(mistake(R"({"timestamp": 0, "output_length": 5})"), "trace:1: `prompt_tokens` is missing");
  EXPECT_TRUE(mistake("{\"timestamp\": 0, \n").starts_with("trace:1: not JSON: "));
  EXPECT_EQ(mistake("\n\n"), "trace: the file is empty");
  for (const char* heading :
       {"TIMESTAMP,GeneratedTokens,ContextTokens", "TIMESTAMP,ContextTokens,GeneratedTokens,Id"})
    EXPECT_TRUE(mistake(fmt::format("{}\n2023-11-16 18:15:46.68,374,44\n", heading))
                    .starts_with("trace:1: this is no trace of requests; known are Azure"));
  EXPECT_TRUE(
      mistake("a,b,c\n1,2,3\n").starts_with("trace:1: this is no trace of requests; known are Azure"));
}

TEST_F(TraceFile, CompressedFilesAreReadAsTheyAre) {
  const std::string plain = write("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n");
  const std::string packed = folder_ / "packed";
  gzFile file = gzopen(packed.c_str(), "wb");
  gzputs(file, "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n");
  gzclose(file);
  EXPECT_EQ(read(plain).size(), 1u);
  EXPECT_EQ(read(packed).size(), 1u);
  EXPECT_FALSE(open_trace(folder_ / "absent", 1).has_value());
  EXPECT_FALSE(open_trace(folder_, 1).has_value());
}

TEST_F(TraceFile, AByteOrderMarkIsPassedOver) {
  const std::string mark = "\xef\xbb\xbf";
  EXPECT_EQ(
      read(write(mark + "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n")).size(),
      1u);
  const std::string line = R"({"arrival_s": 1, "prompt_tokens": 100, "output_tokens": 5})";
  EXPECT_EQ(read(write(mark + line + "\n" + line + "\n")).size(), 2u);
  write(mark + "client,window_start_s,rate_rps,cv,pattern,param1,param2\n1,0,0.1,1,Gamma,1,1\n",
        "a_rates.csv");
  std::string lengths = mark + "client,window_start_s,field,q00,q05\n";
  for (const char* field : {"text_tokens", "output_tokens"}) {
    lengths += fmt::format("1,0,{}", field);
    for (int i = 0; i < 21; ++i) lengths += ",7";
    lengths += "\n";
  }
  write(lengths, "a_lengths.csv");
  EXPECT_FALSE(read(folder_ / "a_rates.csv").empty());
}

TEST_F(TraceFile, APipeCannotBeReadTwice) {
  write("");  // makes the folder
  const std::string pipe = folder_ / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const std::string& path : {pipe, std::string("/dev/null")}) {
    const auto source = open_trace(path, 1);
    ASSERT_FALSE(source.has_value());
    EXPECT_TRUE(source.error().message.ends_with("write it to a file first")) << source.error().message;
  }
}

TEST_F(TraceFile, LongLinesAreReadInPieces) {
  std::string line = R"({"timestamp": 0, "input_length": 512000, "output_length": 5, "hash_ids": [0)";
  for (int i = 1; i < 50'000; ++i) line += "," + std::to_string(i);
  const auto all = read(write(line + "]}\n" + line + "]}\n"));
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[1].pieces.size(), 1000u);
}

TEST_F(TraceFile, ServeGenClientsKeepTheirRates) {
  std::string lengths = "client,window_start_s,field";
  for (int i = 0; i <= 100; i += 5) lengths += ",q" + std::string(i < 10 ? "0" : "") + std::to_string(i);
  for (const char* field : {"input_tokens", "output_tokens"}) {
    lengths += std::string("\n1,0,") + field;
    for (int i = 0; i <= 20; ++i) lengths += "," + std::to_string(10 * i + 5);
  }
  write(lengths + "\n", "x_lengths.csv");
  const auto all =
      read(write("client,window_start_s,rate_rps,cv,pattern,param1,param2\n"
                 "1,0,2,1,Gamma,1,1\n1,600,1,5,Gamma,0.04,1\n2,600,0.5,2,Weibull,0.6,1\n",
                 "x_rates.csv"));
  std::map<std::uint64_t, int> by_client;
  double prompt = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    ++by_client[all[i].client];
    prompt += all[i].prompt_tokens;
    ASSERT_TRUE(i == 0 || all[i].at >= all[i - 1].at);
    ASSERT_LT(all[i].at, 1200s);
  }
  ASSERT_EQ(by_client.size(), 2u);
  EXPECT_NEAR(static_cast<double>(all.size()), 1200 + 600 + 300, 2);
  EXPECT_NEAR(prompt / static_cast<double>(all.size()), 105, 5);
}

TEST(BlockChain, AgreesExactlyOnCommonPrefixes) {
  const std::vector<PromptPiece> a{{1, 100}, {2, 60}}, b{{1, 100}, {2, 28}, {3, 100}}, c{{1, 99}, {2, 61}};
  const auto x = block_chain(a, 16), y = block_chain(b, 16), z = block_chain(c, 16);
  ASSERT_EQ(x.size(), 10u);
  ASSERT_EQ(y.size(), 14u);
  for (std::size_t i = 0; i < 10; ++i) EXPECT_EQ(x[i] == y[i], i < 8) << i;
  for (std::size_t i = 0; i < 10; ++i) EXPECT_EQ(x[i] == z[i], i < 6) << i;
}

std::vector<TrafficRequest> drain(TrafficSource& source) {
  std::vector<TrafficRequest> all;
  for (TrafficRequest request;;) {
    const Result<bool> more = source.next(request);
    if (!more || !*more) return all;
    all.push_back(request);
  }
}

double rate_of(const std::vector<TrafficRequest>& all) {
  return static_cast<double>(all.size() - 1) / to_seconds(all.back().at - all.front().at);
}

TEST(Synthetic, RateLengthsAndOrder) {
  SyntheticOptions options;
  options.requests = 20'000;
  options.rate = 25;
  options.turns = 4;
  options.think = 3s;
  options.prompt = {500, 0.5};
  const auto all = drain(*make_synthetic(options, 3));
  ASSERT_EQ(all.size(), 20'000u);
  EXPECT_NEAR(rate_of(all), 25, 1.5);
  std::set<std::uint64_t> conversations;
  for (std::size_t i = 0; i < all.size(); ++i) {
    conversations.insert(all[i].client);
    ASSERT_TRUE(i == 0 || all[i].at >= all[i - 1].at);
  }
  EXPECT_NEAR(20'000.0 / static_cast<double>(conversations.size()), 4, 0.2);
}

TEST(Synthetic, TurnsRepeatAllBeforeThem) {
  SyntheticOptions options;
  options.requests = 500;
  options.turns = 5;
  options.prefixes = 3;
  options.prefix_tokens = 160;
  std::map<std::uint64_t, std::vector<std::uint64_t>> chains;
  int later = 0;
  const auto all = drain(*make_synthetic(options, 4));
  for (const TrafficRequest& request : all) {
    const auto chain = block_chain(request.pieces, 16);
    auto& before = chains[request.client];
    ASSERT_GE(chain.size(), before.size());
    ASSERT_TRUE(std::equal(before.begin(), before.end(), chain.begin()));
    later += !before.empty();
    before = chain;
  }
  EXPECT_GT(later, 100);
}

TEST(Synthetic, BurstsRaiseTheRate) {
  SyntheticOptions options;
  options.requests = 20'000;
  options.rate = 10;
  options.burst_every = 60s, options.burst_lasts = 6s;
  int inside = 0;
  const auto all = drain(*make_synthetic(options, 5));
  for (const TrafficRequest& request : all) inside += request.at % 60s >= 54s;
  // 54 s at 10/s against 6 s at 100/s.
  EXPECT_NEAR(inside / 20'000.0, 600.0 / 1140, 0.03);
}

TEST(Synthetic, AFactorBelowOneIsALull) {
  SyntheticOptions options;
  options.requests = 20'000;
  options.rate = 10;
  options.burst_every = 60s, options.burst_lasts = 20s;
  options.burst_factor = 0.5;
  int inside = 0;
  for (const TrafficRequest& request : drain(*make_synthetic(options, 5))) inside += request.at % 60s >= 40s;
  EXPECT_NEAR(inside / 20'000.0, 100.0 / 500, 0.02);
}

TEST(Synthetic, PopularPrefixesFollowZipf) {
  SyntheticOptions options;
  options.requests = 20'000;
  options.prefixes = 10;
  options.zipf = 1;
  std::map<std::uint64_t, double> uses;
  for (const TrafficRequest& request : drain(*make_synthetic(options, 6))) ++uses[request.pieces.at(0).id];
  std::vector<double> sorted;
  sorted.reserve(uses.size());
  for (const auto& [id, n] : uses) sorted.push_back(n);
  std::ranges::sort(sorted, std::greater<>());
  ASSERT_EQ(sorted.size(), 10u);
  EXPECT_NEAR(sorted[0] / sorted[1], 2, 0.2);
  EXPECT_NEAR(sorted[0] / sorted[9], 10, 1.5);
}

Result<std::vector<TrafficRequest>> shaped(const ShapeOptions& shape, std::uint64_t seed = 1) {
  SyntheticOptions options;
  options.requests = 10'000;
  const auto source = shape_traffic(
      [&]() -> Result<std::unique_ptr<TrafficSource>> { return make_synthetic(options, 2); }, shape, seed);
  if (!source) return std::unexpected(source.error());
  return drain(**source);
}

TEST(Shape, CutsSamplesAndStretches) {
  EXPECT_NEAR(static_cast<double>(shaped({.start = 100s, .duration = 200s})->size()), 2000, 150);
  EXPECT_LT(shaped({.start = 100s, .duration = 200s})->front().at, 1s);
  EXPECT_NEAR(static_cast<double>(shaped({.sample = 0.25})->size()), 2500, 150);
  EXPECT_EQ(shaped({.requests = 17})->size(), 17u);
  EXPECT_NEAR(rate_of(*shaped({.rate = 3})), 3, 1e-6);
  EXPECT_NEAR(rate_of(*shaped({.scale = 4})), 4 * rate_of(*shaped({})), 1e-6);
  EXPECT_FALSE(shaped({.requests = 1, .rate = 3}).has_value());
}

TEST(Shape, StreamsAreDrawnByThemselvesAndWhereTheTrafficDoesNotTell) {
  const auto plain = *shaped({.sample = 0.5}), some = *shaped({.sample = 0.5, .streamed = 0.7});
  ASSERT_EQ(some.size(), plain.size());
  std::size_t streamed = 0;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    ASSERT_EQ(some[i].at, plain[i].at);
    ASSERT_EQ(plain[i].stream, std::nullopt);
    streamed += *some[i].stream;
  }
  EXPECT_NEAR(static_cast<double>(streamed) / static_cast<double>(some.size()), 0.7, 0.03);
}

TEST(Shape, ResamplingKeepsContentsInOrderAndTheRate) {
  const auto plain = *shaped({}), a = *shaped({.resample = 30s}, 1), b = *shaped({.resample = 30s}, 2);
  ASSERT_EQ(a.size(), plain.size());
  EXPECT_NEAR(rate_of(a), rate_of(plain), 0.3);
  bool differ = false;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    ASSERT_EQ(a[i].prompt_tokens, plain[i].prompt_tokens);
    differ = differ || a[i].at != b[i].at;
    ASSERT_TRUE(i == 0 || a[i].at >= a[i - 1].at);
  }
  EXPECT_TRUE(differ);
}

TEST(Draws, GammaAndWeibullHaveTheirMoments) {
  for (const double shape : {0.05, 0.5, 1.0, 3.0}) {
    Rng rng(1);
    double gamma = 0, weibull = 0;
    const int n = 200'000;
    for (int i = 0; i < n; ++i)
      gamma += draw_gamma(rng, shape), weibull += draw_weibull(rng, std::max(shape, 0.5));
    EXPECT_NEAR(gamma / n, shape, 0.02 * std::max(1.0, shape) + 0.1 * shape);
    EXPECT_NEAR(weibull / n, std::tgamma(1 + 1 / std::max(shape, 0.5)), 0.06);
  }
}

RC_GTEST_PROP(TraceLineProperty, AnyBytesAreARequestOrAMistake, (const std::string& line)) {
  for (const TraceFormat format : {TraceFormat::azure, TraceFormat::json_lines, TraceFormat::access_log}) {
    TraceLineReader reader(format);
    TrafficRequest request;
    const Result<bool> read = reader.read(line, request);
    RC_ASSERT((read.has_value() || !read.error().message.empty()));
  }
}

}  // namespace
}  // namespace heng
