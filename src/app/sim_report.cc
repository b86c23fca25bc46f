// Plots of distributions over all policies, and of each policy's course over time.
#include "app/sim_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>

#include "sim/measures.h"

namespace heng {

namespace {

constexpr double kWidth = 560, kHeight = 260, kLeft = 56, kRight = 12, kTop = 28, kBottom = 40;

/// Okabe and Ito's palette: told apart by colour-blind readers too.
constexpr std::array<std::string_view, 8> kColours = {"#0072b2", "#e69f00", "#009e73", "#cc79a7",
                                                      "#56b4e9", "#d55e00", "#7f7f7f", "#b5a300"};

constexpr std::string_view kStyle =
    "body{font:15px/1.45 system-ui,sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;color:#1c1f23;"
    "background:#fff}h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em;border-top:1px solid #d0d4d9;"
    "padding-top:1em}table{border-collapse:collapse;font-size:13px}td,th{padding:.25em .7em;text-align:right;"
    "border-bottom:1px solid #e2e5e9;font-variant-numeric:tabular-nums}td:first-child,th:first-child{"
    "text-align:left}.plots{display:flex;flex-wrap:wrap;gap:14px}svg{width:560px;max-width:100%;height:auto}"
    "svg text{font:11px system-ui,sans-serif;fill:#555}svg .title{font-size:13px;fill:#1c1f23}"
    "svg .grid{stroke:#e2e5e9}.wide{overflow-x:auto}.key{display:inline-block;margin-right:1.2em}"
    ".key svg{width:28px;height:8px;margin-right:.35em;vertical-align:.1em}";

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;
};

struct Plot {
  std::string title, x_label;
  std::vector<Series> series{};
  bool log_x = false;
  double y_max = 0;  // 0 = of the data
};

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += c;
    }
  }
  return out;
}

std::string_view colour(std::size_t index) { return kColours[index % kColours.size()]; }

/// Colours come round again: the second time dashed, then dotted, and so on.
std::string_view dashes(std::size_t index) {
  constexpr std::array<std::string_view, 4> kDashes = {"none", "6 3", "2 3", "9 3 2 3"};
  return kDashes[index / kColours.size() % kDashes.size()];
}

/// 1, 2 or 5 times a power of ten, about a fifth of the range.
double tick_of(double range) {
  const double power = std::pow(10, std::floor(std::log10(range / 4)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (range / (factor * power) <= 5) return factor * power;
  }
  return 10 * power;
}

class Drawing {
 public:
  explicit Drawing(const Plot& plot) : plot_(plot) {
    x_low_ = 1e300, x_high_ = -1e300, y_high_ = plot.y_max;
    for (const Series& series : plot.series) {
      for (const auto& [x, y] : series.points) {
        x_low_ = std::min(x_low_, place(x)), x_high_ = std::max(x_high_, place(x));
        if (plot.y_max == 0 && !std::isnan(y)) y_high_ = std::max(y_high_, y);
      }
    }
    if (x_high_ <= x_low_) x_high_ = x_low_ + 1;
    if (y_high_ <= 0) y_high_ = 1;
  }

  std::string svg() {
    out_ = fmt::format(
        "<svg viewBox=\"0 0 {} {}\" role=\"img\"><text class=\"title\" x=\"{}\" y=\"16\">{}</text>", kWidth,
        kHeight, kLeft, escape(plot_.title));
    axes();
    for (std::size_t i = 0; i < plot_.series.size(); ++i) line(plot_.series[i], i);
    return out_ + "</svg>\n";
  }

 private:
  double place(double x) const { return plot_.log_x ? std::log10(std::max(x, 1e-6)) : x; }
  double at_x(double placed) const {
    return kLeft + (placed - x_low_) / (x_high_ - x_low_) * (kWidth - kLeft - kRight);
  }
  double at_y(double y) const { return kHeight - kBottom - y / y_high_ * (kHeight - kTop - kBottom); }

  void axes() {
    const double step = tick_of(y_high_);
    for (double y = 0; y <= y_high_ * 1.001; y += step) {
      out_ += fmt::format(
          "<line class=\"grid\" x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>"
          "<text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5:g}</text>",
          kLeft, kWidth - kRight, at_y(y), kLeft - 6, at_y(y) + 4, std::round(y * 1e6) / 1e6);
    }
    const double x_step = plot_.log_x ? 1 : tick_of(x_high_ - x_low_);
    for (double x = std::ceil(x_low_ / x_step) * x_step; x <= x_high_ + 1e-9; x += x_step) {
      out_ += fmt::format(
          "<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>"
          "<text x=\"{0:.1f}\" y=\"{3}\" text-anchor=\"middle\">{4:g}</text>",
          at_x(x), kTop, kHeight - kBottom, kHeight - kBottom + 15, plot_.log_x ? std::pow(10, x) : x);
    }
    out_ += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                        (kLeft + kWidth - kRight) / 2, kHeight - 6, escape(plot_.x_label));
  }

  /// Points without a value are gaps. A value between two of them would be no line: it gets a tick of its
  /// own.
  void line(const Series& series, std::size_t index) {
    std::string path;
    bool drawing = false;
    for (const auto& [x, y] : series.points) {
      if (std::isnan(y)) {
        drawing = false;
        continue;
      }
      const double top = at_y(std::min(y, y_high_));
      path += drawing ? fmt::format("L{:.1f},{:.1f}", at_x(place(x)), top)
                      : fmt::format("M{:.1f},{:.1f}h.1", at_x(place(x)), top);
      drawing = true;
    }
    if (path.empty()) return;
    out_ += fmt::format(
        "<path fill=\"none\" stroke-linecap=\"round\" stroke=\"{}\" stroke-dasharray=\"{}\" "
        "stroke-width=\"1.6\" d=\"{}\"/>",
        colour(index), dashes(index), path);
  }

  const Plot& plot_;
  double x_low_, x_high_, y_high_;
  std::string out_;
};

std::string key_of(const std::vector<std::string>& names) {
  std::string out = "<p>";
  for (std::size_t i = 0; i < names.size(); ++i) {
    out += fmt::format(
        "<span class=\"key\"><svg viewBox=\"0 0 28 8\"><path d=\"M0,4h28\" stroke=\"{}\" "
        "stroke-dasharray=\"{}\" "
        "stroke-width=\"3\"/></svg>{}</span>",
        colour(i), dashes(i), escape(names[i]));
  }
  return out + "</p>\n";
}

/// At most about 300 points: more would not be seen.
Series distribution(const SimResult& result, const LatencyHistogram& histogram) {
  Series series{result.policy.label, {}};
  const auto points = histogram.distribution();
  const std::size_t stride = points.size() / 300 + 1;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (i % stride == 0 || i + 1 == points.size())
      series.points.emplace_back(to_milliseconds(points[i].first), points[i].second);
  }
  return series;
}

std::string distributions(const std::vector<SimResult>& results) {
  std::string out;
  const std::pair<const char*, const LatencyHistogram& (Tally::*)() const> kinds[] = {
      {"Time to first token", &Tally::ttft},
      {"Time per output token", &Tally::tpot},
      {"End to end", &Tally::duration}};
  for (const auto& [title, which] : kinds) {
    Plot plot{.title = fmt::format("{}: share of requests up to", title),
              .x_label = "ms",
              .log_x = true,
              .y_max = 1};
    for (const SimResult& result : results)
      plot.series.push_back(distribution(result, (result.tally.*which)()));
    out += Drawing(plot).svg();
  }
  return out;
}

/// Of nothing there is no share and no mean: a gap in the line.
double over(double part, double whole) {
  return whole > 0 ? part / whole : std::numeric_limits<double>::quiet_NaN();
}

/// One line for each worker: `of(span)` gives a number by worker.
template <class Of>
Plot by_worker(const Tally& tally, std::string title, Of of) {
  Plot plot{.title = std::move(title), .x_label = "s", .series = {}};
  const double step = to_seconds(tally.timeline_step());
  for (std::size_t worker = 0; worker < tally.options().workers; ++worker) {
    Series series{fmt::format("w{}", worker + 1), {}};
    for (std::size_t i = 0; i < tally.timeline().size(); ++i) {
      series.points.emplace_back((static_cast<double>(i) + 0.5) * step, of(tally.timeline()[i], worker));
    }
    plot.series.push_back(std::move(series));
  }
  return plot;
}

std::string course(const SimResult& result) {
  const Tally& tally = result.tally;
  std::string out =
      Drawing(by_worker(tally, "Requests in flight by worker", [](const TimelineSpan& span, std::size_t w) {
        return over(span.in_flight[w], span.samples);
      })).svg();
  const bool weighted =
      std::ranges::any_of(tally.timeline(), [](const auto& span) { return !span.weights.empty(); });
  if (weighted) {
    out += Drawing(by_worker(tally, "Weights (first gateway)", [](const TimelineSpan& span, std::size_t w) {
             return w < span.weights.size() ? over(span.weights[w], span.samples) : 0;
           })).svg();
  }
  out += Drawing(by_worker(tally, "Share of requests by worker", [](const TimelineSpan& span, std::size_t w) {
           double all = 0;
           for (const std::uint64_t assigned : span.assigned) all += static_cast<double>(assigned);
           return over(static_cast<double>(span.assigned[w]), all);
         })).svg();
  Plot cache{
      .title = "Cached share of prompt tokens", .x_label = "s", .series = {{"cached", {}}}, .y_max = 1};
  Plot ends{.title = "Requests per second: completed, refused or failed",
            .x_label = "s",
            .series = {{"completed", {}}, {"lost", {}}}};
  Plot ttft{.title = "Mean time to first token, s", .x_label = "s", .series = {{"ttft", {}}}};
  Plot queue{.title = "Requests waiting in the gateways", .x_label = "s", .series = {{"queued", {}}}};
  const double step = to_seconds(tally.timeline_step());
  for (std::size_t i = 0; i < tally.timeline().size(); ++i) {
    const TimelineSpan& span = tally.timeline()[i];
    const double at = (static_cast<double>(i) + 0.5) * step;
    const auto completed = static_cast<double>(span.completed);
    cache.series[0].points.emplace_back(
        at, over(static_cast<double>(span.cached_tokens), static_cast<double>(span.prompt_tokens)));
    queue.series[0].points.emplace_back(at, over(span.queued, span.samples));
    ends.series[0].points.emplace_back(at, completed / step);
    ends.series[1].points.emplace_back(at, static_cast<double>(span.lost) / step);
    ttft.series[0].points.emplace_back(at, over(span.ttft_s, static_cast<double>(span.streamed)));
  }
  for (const Plot* plot : {&cache, &ttft, &ends}) out += Drawing(*plot).svg();
  if (tally.had_to_wait() > 0) out += Drawing(queue).svg();
  return out;
}

std::string measures_table(const std::vector<SimResult>& results) {
  std::string out = "<div class=\"wide\"><table><tr><th>measure</th>";
  for (const SimResult& result : results) out += fmt::format("<th>{}</th>", escape(result.policy.label));
  out += "<th></th></tr>\n";
  for (const Measure& measure : measures()) {
    out += fmt::format("<tr><td>{}</td>", measure.name);
    for (const SimResult& result : results) out += fmt::format("<td>{:.4g}</td>", measure.of(result.tally));
    out += fmt::format("<td style=\"text-align:left\">{}</td></tr>\n", escape(measure.doc));
  }
  return out + "</table></div>\n";
}

/// What besides the trace decides the traffic: enough to run it again.
std::string traffic_keys(const Scenario& scenario) {
  const ScenarioTraffic& traffic = scenario.traffic;
  const ShapeOptions& shape = traffic.shape;
  std::string out;
  const auto add = [&](std::string_view key, bool set, std::string_view value) {
    if (set) out += fmt::format(", {} {}", key, value);
  };
  const auto seconds = [](Duration span) { return fmt::format("{:g} s", to_seconds(span)); };
  const bool made_up = traffic.trace.empty();
  const double rate = traffic.rate > 0 ? traffic.rate : made_up ? traffic.synthetic.rate : 0;
  add("rate", rate > 0, fmt::format("{:g}/s", rate));
  add("scale", shape.scale != 1, fmt::format("{:g}", shape.scale));
  add("sample", shape.sample < 1, fmt::format("{:g}", shape.sample));
  add("streamed", shape.streamed < 1, fmt::format("{:g}", shape.streamed));
  add("resample", shape.resample > Duration(0), seconds(shape.resample));
  add("start", shape.start > Duration(0), seconds(shape.start));
  add("duration", shape.duration > Duration(0), seconds(shape.duration));
  add("requests", traffic.requests > 0, fmt::format("at most {}", traffic.requests));
  add("warm-up", scenario.warmup > Duration(0), seconds(scenario.warmup));
  return out;
}

/// "8 workers", and their speeds if these differ: "2 of speed 0.5, 6 of speed 1".
std::string workers_of(const Scenario& scenario) {
  std::map<double, std::size_t> speeds;
  for (const SimWorker& worker : scenario.workers) ++speeds[worker.engine.speed];
  std::string out =
      fmt::format("{} worker{}", scenario.workers.size(), scenario.workers.size() == 1 ? "" : "s");
  for (const auto& [speed, count] : speeds) {
    if (speeds.size() > 8) break;
    out += fmt::format("{}{} of speed {:g}", speed == speeds.begin()->first ? " (" : ", ", count, speed);
  }
  return speeds.size() > 8 ? out : out + ")";
}

}  // namespace

Result<void> write_sim_report(const Scenario& scenario, const std::vector<SimResult>& results,
                              const std::string& path) {
  std::vector<std::string> policies, workers;
  for (const SimResult& result : results) policies.push_back(result.policy.label);
  for (std::size_t i = 0; i < scenario.workers.size(); ++i)
    workers.push_back(fmt::format("w{} (speed {:g})", i + 1, scenario.workers[i].engine.speed));
  const std::string title = scenario.name.empty() ? "Simulation" : escape(scenario.name);
  const std::string source =
      scenario.traffic.trace.empty() ? "made-up traffic" : escape(scenario.traffic.trace);
  std::string page = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>"
      "<meta name=\"viewport\" content=\"width=device-width\"><style>{1}</style></head><body>\n"
      "<h1>{0}</h1>\n<p>{2}; {3}, {4} gateway{5}, seed {6}. Good: first token within {7:g} s, then "
      "{8:g} ms a token; without stream, the whole answer in the time these allow.</p>\n",
      title, kStyle, source + traffic_keys(scenario), workers_of(scenario), scenario.gateways,
      scenario.gateways == 1 ? "" : "s", scenario.seed, to_seconds(scenario.ttft_objective),
      to_milliseconds(scenario.tpot_objective));
  page += measures_table(results) + "<h2>Distributions</h2>\n" + key_of(policies);
  page += "<div class=\"plots\">\n" + distributions(results) + "</div>\n";
  if (workers.size() <= 32) page += "<h2>Workers</h2>\n" + key_of(workers);
  for (const SimResult& result : results) {
    page += fmt::format("<h2>{}</h2>\n<div class=\"plots\">\n{}</div>\n", escape(result.policy.label),
                        course(result));
  }
  std::ofstream file(path);
  file << page << "</body></html>\n";
  if (!file.flush()) return fail(ErrorCode::io, fmt::format("cannot write {}", path));
  return {};
}

}  // namespace heng
