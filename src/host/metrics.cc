// Keeps metric series in memory and writes them in Prometheus' text format.
#include "host/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>

#include "base/result.h"

namespace heng {
namespace {

// OpenTelemetry semantic conventions for generative AI: gen_ai.server.request.duration, .time_to_first_token,
// .time_per_output_token.
constexpr double kDurationBuckets[] = {0.01, 0.02, 0.04, 0.08,  0.16,  0.32,  0.64,
                                       1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92};
constexpr double kTtftBuckets[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                   0.25,  0.5,   0.75, 1.0,  2.5,  5.0,  7.5,  10.0};
constexpr double kInterTokenBuckets[] = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,
                                         0.3,  0.4,   0.5,  0.75,  1.0, 2.5};

bool is_name(std::string_view name, bool colon_allowed) {
  const auto is_start = [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c == ':' && colon_allowed);
  };
  return !name.empty() && is_start(name[0]) &&
         std::ranges::all_of(name, [&](char c) { return is_start(c) || (c >= '0' && c <= '9'); });
}

bool are_labels(const MetricLabels& sorted) {
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    if (!is_name(sorted[i].first, false) || sorted[i].first.starts_with("__") || sorted[i].first == "le")
      return false;
    if (i > 0 && sorted[i - 1].first == sorted[i].first) return false;
  }
  return true;
}

std::string format_value(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  return fmt::format("{}", value);
}

/// Label values escape the quote too; help texts must not.
std::string escape(std::string_view text, bool quote) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '"' && quote) {
      out += "\\\"";
    } else {
      out += c;
    }
  }
  return out;
}

void append_sample(std::string& page, std::string_view name, const MetricLabels& labels, std::string_view le,
                   std::string_view value) {
  page += name;
  const char* separator = "{";
  for (const auto& [key, text] : labels) {
    fmt::format_to(std::back_inserter(page), "{}{}=\"{}\"", separator, key, escape(text, true));
    separator = ",";
  }
  if (!le.empty()) {
    fmt::format_to(std::back_inserter(page), "{}le=\"{}\"", separator, le);
    separator = ",";
  }
  if (*separator == ',') page += '}';
  fmt::format_to(std::back_inserter(page), " {}\n", value);
}

}  // namespace

std::span<const double> duration_buckets() { return kDurationBuckets; }
std::span<const double> ttft_buckets() { return kTtftBuckets; }
std::span<const double> inter_token_buckets() { return kInterTokenBuckets; }

Histogram::Histogram(std::span<const double> bounds) : bounds_(bounds), counts_(bounds.size() + 1) {
  HENG_ASSERT(!bounds.empty() && std::ranges::all_of(bounds, [](double b) { return std::isfinite(b); }));
  HENG_ASSERT(std::ranges::is_sorted(bounds, std::ranges::less_equal{}));
}

void Histogram::observe(double value) {
  HENG_ASSERT(!std::isnan(value));
  ++counts_[std::ranges::lower_bound(bounds_, value) - bounds_.begin()];
  sum_ += value;
  ++count_;
}

double Histogram::quantile(double q) const {
  HENG_ASSERT(q >= 0 && q <= 1);
  if (count_ == 0) return 0;
  const double rank = q * static_cast<double>(count_);
  double below = 0;
  for (std::size_t i = 0; i < bounds_.size(); ++i) {
    const auto inside = static_cast<double>(counts_[i]);
    if (inside > 0 && below + inside >= rank) {
      const double low = i > 0 ? bounds_[i - 1] : std::min(bounds_[0], 0.0);
      return low + (bounds_[i] - low) * std::max(rank - below, 0.0) / inside;
    }
    below += inside;
  }
  return bounds_.back();  // beyond the last bound nothing is known but that
}

struct MetricRegistry::Series {
  Counter counter;
  Gauge gauge;
  std::unique_ptr<Histogram> histogram;
};

struct MetricRegistry::Family {
  Type type{};
  std::string name;
  std::string help;
  std::span<const double> bounds;
  std::map<MetricLabels, std::unique_ptr<Series>> series;  // labels sorted by name; ordered for a stable page
};

MetricRegistry::MetricRegistry(std::size_t series_max) : series_max_(series_max) {
  HENG_ASSERT(series_max > 0);
}
MetricRegistry::~MetricRegistry() = default;

Counter& MetricRegistry::counter(std::string_view name, std::string_view help, const MetricLabels& labels) {
  return find_or_add(Type::counter, name, help, labels, {}).counter;
}

Gauge& MetricRegistry::gauge(std::string_view name, std::string_view help, const MetricLabels& labels) {
  return find_or_add(Type::gauge, name, help, labels, {}).gauge;
}

Histogram& MetricRegistry::histogram(std::string_view name, std::string_view help,
                                     std::span<const double> bounds, const MetricLabels& labels) {
  return *find_or_add(Type::histogram, name, help, labels, bounds).histogram;
}

MetricRegistry::Series& MetricRegistry::find_or_add(Type type, std::string_view name, std::string_view help,
                                                    MetricLabels labels, std::span<const double> bounds) {
  std::ranges::sort(labels);
  HENG_ASSERT(is_name(name, true) && are_labels(labels));
  auto found = std::ranges::find_if(families_, [&](const auto& family) { return family->name == name; });
  if (found == families_.end()) {
    families_.push_back(std::make_unique<Family>());
    found = std::prev(families_.end());
    **found = {type, std::string(name), std::string(help), bounds, {}};
  }
  Family& family = **found;
  HENG_ASSERT(family.type == type && std::ranges::equal(family.bounds, bounds));
  auto place = family.series.find(labels);
  if (place == family.series.end() && family.series.size() >= series_max_) {
    for (auto& [key, value] : labels) value = "other";
    place = family.series.find(labels);
  }
  if (place == family.series.end()) {
    auto series = std::make_unique<Series>();
    if (type == Type::histogram) series->histogram = std::make_unique<Histogram>(bounds);
    place = family.series.emplace(std::move(labels), std::move(series)).first;
  }
  return *place->second;
}

void MetricRegistry::remove(const MetricLabels& labels) {
  for (const auto& family : families_) {
    std::erase_if(family->series, [&](const auto& entry) {
      return std::ranges::all_of(labels, [&](const auto& label) {
        return std::ranges::find(entry.first, label) != entry.first.end();
      });
    });
  }
}

void MetricRegistry::expose(std::string& page, const Family& family, const MetricLabels& labels,
                            const Series& series) {
  if (family.type == Type::counter)
    return append_sample(page, family.name, labels, "", format_value(series.counter.value));
  if (family.type == Type::gauge)
    return append_sample(page, family.name, labels, "", format_value(series.gauge.value));
  const Histogram& histogram = *series.histogram;
  const std::string bucket = family.name + "_bucket";
  std::uint64_t cumulative = 0;
  for (std::size_t i = 0; i < family.bounds.size(); ++i) {
    cumulative += histogram.counts_[i];
    append_sample(page, bucket, labels, format_value(family.bounds[i]), fmt::format("{}", cumulative));
  }
  const std::string count = fmt::format("{}", histogram.count_);
  append_sample(page, bucket, labels, "+Inf", count);
  append_sample(page, family.name + "_sum", labels, "", format_value(histogram.sum_));
  append_sample(page, family.name + "_count", labels, "", count);
}

std::string MetricRegistry::expose() const {
  constexpr std::string_view kTypes[] = {"counter", "gauge", "histogram"};
  std::string page;
  for (const auto& family : families_) {
    if (family->series.empty()) continue;
    fmt::format_to(std::back_inserter(page), "# HELP {} {}\n# TYPE {} {}\n", family->name,
                   escape(family->help, false), family->name, kTypes[static_cast<std::size_t>(family->type)]);
    for (const auto& [labels, series] : family->series) expose(page, *family, labels, *series);
  }
  return page;
}

}  // namespace heng
