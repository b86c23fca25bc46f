// The names engines use, and the reading of sample lines as
// https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format has them.
#include "host/engine_load_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "base/hash.h"

namespace heng {

namespace {

enum class Quantity : std::uint8_t { running, waiting, kv_used };

struct Series {
  std::string_view name;
  Quantity quantity;
};

// Of two that tell the same, the first counts.
constexpr Series kKnown[] = {
    // https://docs.vllm.ai/en/latest/usage/metrics.html; the second form of the last is that of 2024
    {"vllm:num_requests_running", Quantity::running},
    {"vllm:num_requests_waiting", Quantity::waiting},
    {"vllm:kv_cache_usage_perc", Quantity::kv_used},
    {"vllm:gpu_cache_usage_perc", Quantity::kv_used},
    // https://docs.sglang.ai/references/production_metrics.html
    {"sglang:num_running_reqs", Quantity::running},
    {"sglang:num_queue_reqs", Quantity::waiting},
    {"sglang:token_usage", Quantity::kv_used},
    // https://github.com/ggml-org/llama.cpp/tree/master/tools/server; the last has gone from newer ones
    {"llamacpp:requests_processing", Quantity::running},
    {"llamacpp:requests_deferred", Quantity::waiting},
    {"llamacpp:kv_cache_usage_ratio", Quantity::kv_used},
    // https://huggingface.co/docs/text-generation-inference/reference/metrics
    {"tgi_batch_current_size", Quantity::running},
    {"tgi_queue_size", Quantity::waiting},
};

/// Which part of one engine speaks: all parts have the same requests.
constexpr std::string_view kParts[] = {"tp_rank", "pp_rank", "moe_ep_rank", "pid"};

constexpr double kRequestsMax = 1e6;

bool is_blank(char c) { return c == ' ' || c == '\t'; }

void skip_blanks(std::string_view& text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
}

/// Up to the first of `stops`, which must be there.
std::optional<std::string_view> take_until(std::string_view& text, std::string_view stops) {
  const std::size_t end = text.find_first_of(stops);
  if (end == text.npos) return {};
  const std::string_view taken = text.substr(0, end);
  text.remove_prefix(end);
  return taken;
}

bool take_char(std::string_view& text, char wanted) {
  skip_blanks(text);
  if (!text.starts_with(wanted)) return false;
  text.remove_prefix(1);
  return true;
}

/// A quoted value with its escapes as they stand.
std::optional<std::string_view> take_quoted(std::string_view& text) {
  if (!take_char(text, '"')) return {};
  std::size_t end = 0;
  while (end < text.size() && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
  if (end >= text.size()) return {};
  const std::string_view value = text.substr(0, end);
  text.remove_prefix(end + 1);
  return value;
}

struct LabelSet {
  std::uint64_t hash = 0;  // of what tells engines apart
  bool share = false;      // of a number that is told as a whole too
};

/// `{name="value",...}` or nothing.
std::optional<LabelSet> take_labels(std::string_view& text) {
  LabelSet set;
  if (!take_char(text, '{')) return set;
  while (!take_char(text, '}')) {
    skip_blanks(text);
    const auto name = take_until(text, "= \t");
    if (!name || name->empty() || !take_char(text, '=')) return {};
    const auto value = take_quoted(text);
    if (!value) return {};
    // SGLang with priorities: the sum has priority="".
    if (*name == "priority" && !value->empty()) set.share = true;
    if (std::ranges::find(kParts, *name) == std::end(kParts))
      set.hash += combine(hash_bytes(*name), hash_bytes(*value));
    skip_blanks(text);
    if (!text.starts_with('}') && !take_char(text, ',')) return {};
  }
  return set;
}

/// The value, and perhaps a time, which is not looked at.
std::optional<double> take_value(std::string_view text) {
  skip_blanks(text);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || !std::isfinite(value)) return {};
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  if (!text.empty() && !is_blank(text.front())) return {};
  skip_blanks(text);
  if (text.find_first_not_of("-0123456789 \t") != text.npos) return {};
  return value;
}

/// Pages have a thousand lines of others: where a name ends is the quickest thing to look at.
const Series* find_series(std::string_view line) {
  for (const Series& series : kKnown) {
    const std::size_t size = series.name.size();
    if (line.size() < size) continue;
    const bool ends = line.size() == size || line[size] == '{' || is_blank(line[size]);
    if (ends && line.starts_with(series.name)) return &series;
  }
  return nullptr;
}

}  // namespace

void EngineLoadReader::begin() {
  static_assert(std::size(kKnown) == kSeries);
  line_.clear();
  skipping_ = false;
  bad_ = {};
  for (Sum& sum : sums_) sum.total = 0, sum.sets.clear();
}

void EngineLoadReader::take(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::size_t end = std::min(bytes.find('\n'), bytes.size());
    const bool whole = end < bytes.size();
    const std::string_view part = bytes.substr(0, end);
    bytes.remove_prefix(whole ? end + 1 : end);
    if (whole && !skipping_ && line_.empty()) {
      read_line(part);
      continue;
    }
    if (!skipping_) line_.append(part.substr(0, kLineMax + 1));
    if (whole || line_.size() > kLineMax) {
      if (!skipping_) read_line(line_);
      line_.clear();
      skipping_ = !whole;
    }
  }
}

void EngineLoadReader::read_line(std::string_view line) {
  if (!bad_.empty() || line.starts_with('#')) return;
  const Series* series = find_series(line);
  if (series == nullptr) return;
  const bool too_long = line.size() > kLineMax;
  if (line.ends_with('\r')) line.remove_suffix(1);
  const bool read = !too_long && read_sample(line.substr(series->name.size()),
                                             sums_[static_cast<std::size_t>(series - kKnown)]);
  if (!read) bad_ = series->name;
}

bool EngineLoadReader::read_sample(std::string_view rest, Sum& sum) {
  const auto labels = take_labels(rest);
  if (!labels) return false;
  const auto value = take_value(rest);
  if (!value || *value < 0 || *value > kRequestsMax) return false;
  if (labels->share || std::ranges::find(sum.sets, labels->hash) != sum.sets.end()) return true;
  if (sum.sets.size() == kSetsMax) return false;
  sum.sets.push_back(labels->hash);
  sum.total += *value;
  return true;
}

Result<EngineLoad> EngineLoadReader::finish() {
  // Without its end of line it may have been cut off.
  if (skipping_ || (!line_.empty() && !line_.starts_with('#')))
    return fail(ErrorCode::protocol, "its last line is not complete");
  if (!bad_.empty()) return fail(ErrorCode::protocol, fmt::format("`{}` on it cannot be read", bad_));
  EngineLoad load;
  bool running = false, waiting = false, kv_used = false;
  for (std::size_t i = 0; i < kSeries; ++i) {
    const Sum& sum = sums_[i];
    if (sum.sets.empty()) continue;
    const auto total = static_cast<float>(sum.total);
    switch (kKnown[i].quantity) {
      case Quantity::running:
        load.running += total;
        running = true;
        break;
      case Quantity::waiting:
        load.waiting += total;
        waiting = true;
        break;
      case Quantity::kv_used:
        if (!kv_used) load.kv_used = std::min(total / static_cast<float>(sum.sets.size()), 1.0f);
        kv_used = true;
        break;
    }
  }
  if (!running || !waiting) {
    return fail(ErrorCode::not_found,
                "it names no load of an engine; SGLang wants `--enable-metrics`, llama-server `--metrics`");
  }
  return load;
}

}  // namespace heng
