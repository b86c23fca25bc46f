// Reading of the two tables and the merge of all clients' arrivals.
#include "sim/traffic/servegen.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <span>
#include <vector>

#include "base/hash.h"
#include "base/rng.h"
#include "sim/traffic/draws.h"
#include "sim/traffic/line_file.h"

namespace heng {

namespace {

constexpr std::string_view kRatesHeading = "client,window_start_s,rate_rps,cv,pattern,param1,param2";
constexpr std::string_view kLengthsHeading = "client,window_start_s,field,q00,q05";
constexpr double kWindowSeconds = 600;
constexpr std::size_t kQuantiles = 21;  // 0%, 5%, ... 100%

using Quantiles = std::array<float, kQuantiles>;

struct Window {
  std::uint32_t start_s;
  float rate;
  float shape;
  bool weibull;
};

struct Lengths {  // of one client in one window of six hours
  std::uint32_t start_s = 0;
  std::vector<Quantiles> prompt;  // what adds up to the prompt: text, image, ... tokens
  Quantiles output{};
};

struct Client {
  std::uint32_t id = 0;
  std::vector<Window> windows;
  const std::vector<Lengths>* lengths = nullptr;
  Rng rng{0};
  std::size_t window = 0;        // the next to be drawn
  std::vector<double> arrivals;  // of the window drawn last, latest first
};

std::vector<std::string_view> split(std::string_view line) {
  std::vector<std::string_view> cells;
  for (std::size_t comma = line.find(','); comma != line.npos; comma = line.find(',')) {
    cells.push_back(line.substr(0, comma));
    line.remove_prefix(comma + 1);
  }
  cells.push_back(line);
  return cells;
}

/// False unless the whole cell is a number from `least` to `most`.
template <class Number>
bool parse(std::string_view cell, Number least, Number most, Number& out) {
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), out);
  return error == std::errc() && end == cell.data() + cell.size() && out >= least && out <= most;
}

constexpr std::uint32_t kStartMax = 100 * 366 * 86400u;

using RateTable = std::map<std::uint32_t, std::vector<Window>>;
using LengthTable = std::map<std::uint32_t, std::vector<Lengths>>;

/// Calls `take(cells)` for every line after the heading; false from it means the line is wrong.
template <class Take>
Result<void> read_table(const std::string& path, std::string_view heading, Take take) {
  auto file = LineFile::open(path);
  if (!file) return std::unexpected(file.error());
  for (std::string_view line;;) {
    const Result<bool> more = file->next(line);
    if (!more) return std::unexpected(more.error());
    if (!*more) return {};
    if (line.empty() || (file->line_number() == 1 && line.starts_with(heading))) continue;
    if (!take(split(line))) {
      return std::unexpected(file->mistake(fmt::format(
          "expected numbers under the headings {}... in order of time for each client", heading)));
    }
  }
}

Result<RateTable> read_rates(const std::string& path) {
  RateTable table;
  const auto read = read_table(path, kRatesHeading, [&](const std::vector<std::string_view>& cells) {
    std::uint32_t client = 0;
    Window window{};
    const bool fits =
        cells.size() == 7 && parse(cells[0], 0u, UINT32_MAX, client) &&
        parse(cells[1], 0u, kStartMax, window.start_s) && parse(cells[2], 0.0f, 1e5f, window.rate) &&
        parse(cells[5], 1e-3f, 1e6f, window.shape) && (cells[4] == "Gamma" || cells[4] == "Weibull");
    if (!fits) return false;
    window.weibull = cells[4] == "Weibull";
    std::vector<Window>& windows = table[client];
    if (!windows.empty() && window.start_s < windows.back().start_s + kWindowSeconds) return false;
    windows.push_back(window);
    return true;
  });
  if (!read) return std::unexpected(read.error());
  if (table.empty()) return fail(ErrorCode::invalid, fmt::format("{}: no client in it", path));
  return table;
}

Result<LengthTable> read_lengths(const std::string& path) {
  LengthTable table;
  const auto read = read_table(path, kLengthsHeading, [&](const std::vector<std::string_view>& cells) {
    std::uint32_t client = 0, start = 0;
    Quantiles quantiles{};
    if (cells.size() != 3 + kQuantiles || !parse(cells[0], 0u, UINT32_MAX, client) ||
        !parse(cells[1], 0u, kStartMax, start)) {
      return false;
    }
    const std::string_view field = cells[2];
    if (!field.ends_with("_tokens")) return true;  // ratios: no lengths
    for (std::size_t i = 0; i < kQuantiles; ++i) {
      if (!parse(cells[3 + i], 0.0f, static_cast<float>(kTrafficTokensMax), quantiles[i])) return false;
    }
    if (!std::ranges::is_sorted(quantiles)) return false;
    std::vector<Lengths>& windows = table[client];
    if (windows.empty() || windows.back().start_s < start) {
      windows.emplace_back().start_s = start;
    } else if (windows.back().start_s != start) {
      return false;
    }
    if (field == "output_tokens") {
      windows.back().output = quantiles;
    } else {
      windows.back().prompt.push_back(quantiles);
    }
    return true;
  });
  if (!read) return std::unexpected(read.error());
  if (table.empty()) return fail(ErrorCode::invalid, fmt::format("{}: no lengths in it", path));
  return table;
}

double quantile(const Quantiles& quantiles, double u) {
  const double at = u * (kQuantiles - 1);
  const auto low = std::min(static_cast<std::size_t>(at), kQuantiles - 2);
  const double part = at - static_cast<double>(low);
  return quantiles[low] * (1 - part) + quantiles[low + 1] * part;
}

class ServeGenTraffic final : public TrafficSource {
 public:
  ServeGenTraffic(RateTable rates, LengthTable lengths, std::uint64_t seed) : lengths_(std::move(lengths)) {
    std::vector<const std::vector<Lengths>*> known;
    for (const auto& [id, windows] : lengths_) known.push_back(&windows);
    std::uint32_t start = UINT32_MAX;
    for (auto& [id, windows] : rates) {
      start = std::min(start, windows.front().start_s);
      const auto own = lengths_.find(id);
      clients_.push_back({.id = id,
                          .windows = std::move(windows),
                          .lengths = own != lengths_.end() ? &own->second : known[mix(id) % known.size()],
                          .rng = Rng(combine(seed, id)).split("servegen"),
                          .window = 0,
                          .arrivals = {}});
    }
    start_s_ = start;
    for (std::size_t client = 0; client < clients_.size(); ++client) enqueue(client);
  }

  Result<bool> next(TrafficRequest& out) override {
    if (queue_.empty()) return false;
    std::ranges::pop_heap(queue_, std::greater<>());
    const auto [at, index] = queue_.back();
    queue_.pop_back();
    Client& client = clients_[index];
    out.at = from_seconds(at - start_s_);
    out.client = mix(client.id);
    out.stream.reset();
    out.pieces.clear();
    draw_lengths(client, at, out);
    client.arrivals.pop_back();
    enqueue(index);
    return true;
  }

 private:
  void enqueue(std::size_t index) {
    Client& client = clients_[index];
    while (client.arrivals.empty() && client.window < client.windows.size())
      draw_window(client, client.windows[client.window++]);
    if (client.arrivals.empty()) return;
    queue_.emplace_back(client.arrivals.back(), index);
    std::ranges::push_heap(queue_, std::greater<>());
  }

  static void draw_window(Client& client, const Window& window) {
    const double expected = window.rate * kWindowSeconds;
    const auto count = static_cast<std::size_t>(expected + client.rng.uniform());
    double at = 0;
    // One gap more than requests: the last one lies beyond the last request.
    for (std::size_t i = 0; i <= count; ++i) {
      at += window.weibull ? draw_weibull(client.rng, window.shape) : draw_gamma(client.rng, window.shape);
      client.arrivals.push_back(at);
    }
    client.arrivals.pop_back();
    const double scale = at > 0 ? kWindowSeconds / at : 0;
    for (double& arrival : client.arrivals) arrival = window.start_s + arrival * scale;
    std::ranges::reverse(client.arrivals);
  }

  static void draw_lengths(Client& client, double at, TrafficRequest& out) {
    const std::vector<Lengths>& windows = *client.lengths;
    auto window =
        std::ranges::upper_bound(windows, at, {}, [](const Lengths& one) { return double(one.start_s); });
    if (window != windows.begin()) --window;
    double prompt = 0;
    for (const Quantiles& part : window->prompt) prompt += quantile(part, client.rng.uniform());
    const double output = quantile(window->output, client.rng.uniform());
    out.prompt_tokens = static_cast<std::uint32_t>(std::max(1.0, std::round(prompt)));
    out.output_tokens = static_cast<std::uint32_t>(std::max(1.0, std::round(output)));
  }

  LengthTable lengths_;
  std::vector<Client> clients_;
  std::vector<std::pair<double, std::size_t>> queue_;  // heap: earliest first
  double start_s_ = 0;
};

}  // namespace

bool is_servegen(std::string_view first_line) { return first_line.starts_with(kRatesHeading); }

Result<std::unique_ptr<TrafficSource>> open_servegen(const std::string& path, std::uint64_t seed) {
  const std::size_t at = path.rfind("_rates");
  if (at == path.npos) {
    return fail(
        ErrorCode::invalid,
        fmt::format("{}: name this file ..._rates.csv, so that ..._lengths.csv is found beside it", path));
  }
  auto rates = read_rates(path);
  if (!rates) return std::unexpected(rates.error());
  auto lengths = read_lengths(path.substr(0, at) + "_lengths" + path.substr(at + 6));
  if (!lengths) return std::unexpected(lengths.error());
  return std::make_unique<ServeGenTraffic>(std::move(*rates), std::move(*lengths), seed);
}

}  // namespace heng
