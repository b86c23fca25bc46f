// Metric series: what is counted, how the page reads, and that Prometheus' own tool accepts it.
#include "host/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

namespace heng {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Metrics, CountersAndGauges) {
  MetricRegistry registry;
  Counter& requests =
      registry.counter("heng_requests_total", "Requests.", {{"worker", "a"}, {"code", "200"}});
  requests.add();
  requests.add(2);
  registry.gauge("heng_worker_weight", "Share of the pool's work.", {{"worker", "a"}}).set(0.25);
  EXPECT_EQ(registry.expose(),
            "# HELP heng_requests_total Requests.\n"
            "# TYPE heng_requests_total counter\n"
            "heng_requests_total{code=\"200\",worker=\"a\"} 3\n"
            "# HELP heng_worker_weight Share of the pool's work.\n"
            "# TYPE heng_worker_weight gauge\n"
            "heng_worker_weight{worker=\"a\"} 0.25\n");
}

TEST(Metrics, SameLabelsInAnyOrderAreOneSeries) {
  MetricRegistry registry;
  Counter& one = registry.counter("a_total", "A.", {{"x", "1"}, {"y", "2"}});
  Counter& two = registry.counter("a_total", "A.", {{"y", "2"}, {"x", "1"}});
  EXPECT_EQ(&one, &two);
  EXPECT_NE(&one, &registry.counter("a_total", "A.", {{"y", "1"}, {"x", "2"}}));
}

TEST(Metrics, SeriesWithoutLabelsHasNoBraces) {
  MetricRegistry registry;
  registry.counter("a_total", "A.", {}).add();
  EXPECT_THAT(registry.expose(), HasSubstr("\na_total 1\n"));
}

TEST(Metrics, PageOrderDoesNotDependOnInsertion) {
  MetricRegistry registry;
  for (const char* worker : {"c", "a", "b"}) registry.gauge("g", "G.", {{"worker", worker}}).set(1);
  EXPECT_EQ(registry.expose(),
            "# HELP g G.\n# TYPE g gauge\ng{worker=\"a\"} 1\ng{worker=\"b\"} 1\ng{worker=\"c\"} 1\n");
}

TEST(Metrics, EscapesLabelValuesAndHelp) {
  MetricRegistry registry;
  registry.gauge("g", "Back\\slash, \"quote\"\nand line.", {{"model", "a\\b\"c\nd"}}).set(1);
  EXPECT_EQ(registry.expose(),
            "# HELP g Back\\\\slash, \"quote\"\\nand line.\n# TYPE g gauge\n"
            "g{model=\"a\\\\b\\\"c\\nd\"} 1\n");
}

TEST(Metrics, WritesSpecialValuesAsPrometheusReadsThem) {
  MetricRegistry registry;
  Gauge& gauge = registry.gauge("g", "G.", {});
  gauge.set(std::numeric_limits<double>::infinity());
  EXPECT_THAT(registry.expose(), HasSubstr("\ng +Inf\n"));
  gauge.set(-std::numeric_limits<double>::infinity());
  EXPECT_THAT(registry.expose(), HasSubstr("\ng -Inf\n"));
  gauge.set(std::nan(""));
  EXPECT_THAT(registry.expose(), HasSubstr("\ng NaN\n"));
}

TEST(Metrics, HistogramBucketsAreCumulativeAndClosedAbove) {
  static constexpr double kBounds[] = {0.1, 1, 10};
  MetricRegistry registry;
  Histogram& histogram = registry.histogram("h_seconds", "H.", kBounds, {{"model", "m"}});
  for (const double value : {0.05, 0.1, 0.5, 100.0}) histogram.observe(value);
  EXPECT_EQ(registry.expose(),
            "# HELP h_seconds H.\n# TYPE h_seconds histogram\n"
            "h_seconds_bucket{model=\"m\",le=\"0.1\"} 2\n"
            "h_seconds_bucket{model=\"m\",le=\"1\"} 3\n"
            "h_seconds_bucket{model=\"m\",le=\"10\"} 3\n"
            "h_seconds_bucket{model=\"m\",le=\"+Inf\"} 4\n"
            "h_seconds_sum{model=\"m\"} 100.65\n"
            "h_seconds_count{model=\"m\"} 4\n");
}

TEST(Metrics, QuantileInterpolatesLikeHistogramQuantile) {
  static constexpr double kBounds[] = {1, 2, 4};
  Histogram histogram(kBounds);
  EXPECT_EQ(histogram.quantile(0.5), 0);
  for (const double value : {0.5, 1.5, 1.5, 3.0}) histogram.observe(value);
  EXPECT_DOUBLE_EQ(histogram.quantile(0), 0);
  EXPECT_DOUBLE_EQ(histogram.quantile(0.25), 1);
  EXPECT_DOUBLE_EQ(histogram.quantile(0.5), 1.5);
  EXPECT_DOUBLE_EQ(histogram.quantile(0.75), 2);
  EXPECT_DOUBLE_EQ(histogram.quantile(1), 4);
  histogram.observe(1000);
  EXPECT_DOUBLE_EQ(histogram.quantile(1), 4) << "nothing finer is known above the last bound";
}

TEST(Metrics, QuantileSkipsEmptyLeadingBuckets) {
  static constexpr double kBounds[] = {1, 2, 4};
  Histogram histogram(kBounds);
  histogram.observe(3);
  EXPECT_DOUBLE_EQ(histogram.quantile(0), 2);
  EXPECT_DOUBLE_EQ(histogram.quantile(0.5), 3);
}

RC_GTEST_PROP(MetricsProperty, QuantileLiesInTheBucketOfTheExactOne, (std::vector<std::uint16_t> raw)) {
  RC_PRE(!raw.empty());
  Histogram histogram(ttft_buckets());
  std::vector<double> values;
  for (const auto value : raw) values.push_back(value / 7000.0);  // up to 9.4 s, inside the bounds
  for (const double value : values) histogram.observe(value);
  std::ranges::sort(values);
  for (const double q : {0.1, 0.5, 0.9, 0.99, 1.0}) {
    const auto rank = static_cast<std::size_t>(std::ceil(q * static_cast<double>(values.size())));
    const double exact = values[std::max<std::size_t>(rank, 1) - 1];
    const auto bounds = ttft_buckets();
    const auto above = std::ranges::lower_bound(bounds, exact);
    const double low = above == bounds.begin() ? 0 : *(above - 1);
    const double estimate = histogram.quantile(q);
    RC_ASSERT(estimate >= low - 1e-12 && estimate <= *above + 1e-12);
  }
  RC_ASSERT(histogram.count() == values.size());
}

TEST(Metrics, RemovesEverySeriesOfAWorker) {
  MetricRegistry registry;
  registry.gauge("g", "G.", {{"worker", "a"}}).set(1);
  registry.gauge("g", "G.", {{"worker", "b"}}).set(2);
  registry.counter("c_total", "C.", {{"worker", "a"}, {"code", "200"}}).add();
  registry.remove({{"worker", "a"}});
  EXPECT_EQ(registry.expose(), "# HELP g G.\n# TYPE g gauge\ng{worker=\"b\"} 2\n");
  EXPECT_EQ(registry.counter("c_total", "C.", {{"worker", "a"}, {"code", "200"}}).value, 0);
}

TEST(Metrics, FoldsNewLabelSetsPastTheLimit) {
  MetricRegistry registry(3);
  const auto count = [&](const std::string& model) {
    registry.counter("c_total", "C.", {{"model", model}, {"code", "200"}}).add();
  };
  for (const char* model : {"a", "b", "c", "d", "e", "a"}) count(model);
  const std::string page = registry.expose();
  EXPECT_THAT(page, HasSubstr("c_total{code=\"200\",model=\"a\"} 2\n"));
  EXPECT_THAT(page, HasSubstr("c_total{code=\"other\",model=\"other\"} 2\n"));
  EXPECT_THAT(page, Not(HasSubstr("model=\"d\"")));
  registry.gauge("g", "Other families have their own room.", {{"model", "z"}}).set(1);
  EXPECT_THAT(registry.expose(), HasSubstr("g{model=\"z\"} 1\n"));
}

TEST(Metrics, ThousandSeriesAreTheDefaultLimit) {
  MetricRegistry registry;
  for (int i = 0; i < 1200; ++i) registry.counter("c_total", "C.", {{"model", std::to_string(i)}}).add();
  EXPECT_EQ(registry.counter("c_total", "C.", {{"model", "other"}}).value, 200);
}

TEST(Metrics, ReferencesSurviveNewSeriesAndFamilies) {
  MetricRegistry registry;
  Counter& first = registry.counter("first_total", "F.", {{"n", "0"}});
  for (int i = 1; i < 500; ++i) {
    registry.counter("first_total", "F.", {{"n", std::to_string(i)}});
    registry.gauge("g" + std::to_string(i), "G.", {});
  }
  first.add(7);
  EXPECT_EQ(&first, &registry.counter("first_total", "F.", {{"n", "0"}}));
  EXPECT_THAT(registry.expose(), HasSubstr("first_total{n=\"0\"} 7\n"));
}

TEST(MetricsDeath, MisuseIsABug) {
  MetricRegistry registry;
  registry.counter("c_total", "C.", {});
  EXPECT_DEATH(registry.gauge("c_total", "C.", {}), "");
  EXPECT_DEATH(registry.counter("no-dash", "C.", {}), "");
  EXPECT_DEATH(registry.counter("x_total", "X.", {{"le", "1"}}), "");
  EXPECT_DEATH(registry.counter("x_total", "X.", {{"a", "1"}, {"a", "2"}}), "");
  EXPECT_DEATH(registry.histogram("h", "H.", ttft_buckets(), {}).observe(std::nan("")), "");
}

TEST(Metrics, PromtoolAcceptsThePage) {
  ASSERT_EQ(std::system("command -v promtool >/dev/null"), 0)
      << "promtool is missing: apt-get install prometheus";
  MetricRegistry registry;
  registry.counter("heng_requests_total", "Requests by outcome.", {{"model", "a\"b\\c\nd"}, {"code", "200"}})
      .add();
  registry.gauge("heng_worker_weight", "Share of the pool's work.", {{"worker", "http://[::1]:1"}}).set(1e-9);
  registry.histogram("heng_request_duration_seconds", "Duration.", duration_buckets(), {{"model", "m"}})
      .observe(3);
  registry.histogram("heng_ttft_seconds", "Time to first token.", ttft_buckets(), {{"model", "m"}})
      .observe(3);
  registry.histogram("heng_inter_token_seconds", "Between tokens.", inter_token_buckets(), {}).observe(0.02);
  const std::string stem =
      (std::filesystem::temp_directory_path() / "heng_metrics_").string() + std::to_string(getpid());
  std::ofstream(stem + ".txt") << registry.expose();
  const int status = std::system(("promtool check metrics <" + stem + ".txt >" + stem + ".out 2>&1").c_str());
  std::stringstream said;
  said << std::ifstream(stem + ".out").rdbuf();
  std::filesystem::remove(stem + ".txt");
  std::filesystem::remove(stem + ".out");
  EXPECT_EQ(status, 0) << said.str() << registry.expose();
}

}  // namespace
}  // namespace heng
