// Counters, gauges and histograms in Prometheus' text format. One thread writes and reads: plain memory, no
// locks.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace heng {

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

/// Upper bounds in seconds, as OpenTelemetry's GenAI conventions recommend for each quantity.
std::span<const double> duration_buckets();
std::span<const double> ttft_buckets();
std::span<const double> inter_token_buckets();

struct Counter {
  double value = 0;
  void add(double amount = 1) { value += amount; }
};

struct Gauge {
  double value = 0;
  void set(double to) { value = to; }
};

class Histogram {
 public:
  /// `bounds` ascend, are finite and outlive the histogram (in practice: static tables).
  explicit Histogram(std::span<const double> bounds);
  /// O(log buckets), no allocation. Not NaN.
  void observe(double value);
  double sum() const { return sum_; }
  std::uint64_t count() const { return count_; }
  /// Interpolated inside the bucket, as histogram_quantile does; 0 without observations. q in [0, 1].
  double quantile(double q) const;

 private:
  friend class MetricRegistry;
  std::span<const double> bounds_;
  std::vector<std::uint64_t> counts_;  // [bounds + 1], not cumulative
  double sum_ = 0;
  std::uint64_t count_ = 0;
};

/// Owns all series. References stay valid until the series is removed. Looking a series up builds strings:
/// callers keep the reference and never look up per request. Label values are bounded: past `series_max` of a
/// family new label sets are folded into one whose values are all "other". A malformed name, or one name with
/// two types or bucket tables, is a bug and aborts. The order of labels does not matter.
class MetricRegistry {
 public:
  explicit MetricRegistry(std::size_t series_max = 1000);
  ~MetricRegistry();
  MetricRegistry(const MetricRegistry&) = delete;
  MetricRegistry& operator=(const MetricRegistry&) = delete;

  Counter& counter(std::string_view name, std::string_view help, const MetricLabels& labels);
  Gauge& gauge(std::string_view name, std::string_view help, const MetricLabels& labels);
  Histogram& histogram(std::string_view name, std::string_view help, std::span<const double> bounds,
                       const MetricLabels& labels);
  /// Drops every series that carries all of these labels (a worker that left a model's pool).
  void remove(const MetricLabels& labels);
  /// Text exposition format 0.0.4; `promtool check metrics` accepts it.
  std::string expose() const;

 private:
  enum class Type : std::uint8_t { counter, gauge, histogram };
  struct Series;
  struct Family;

  Series& find_or_add(Type type, std::string_view name, std::string_view help, MetricLabels labels,
                      std::span<const double> bounds);
  static void expose(std::string& page, const Family& family, const MetricLabels& labels,
                     const Series& series);

  std::size_t series_max_;
  std::vector<std::unique_ptr<Family>> families_;  // in the order of their first use
};

}  // namespace heng
