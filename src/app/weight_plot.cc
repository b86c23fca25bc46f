// Draws with cairo, which writes both formats from the same strokes.
#include "app/weight_plot.h"

#include <cairo-svg.h>
#include <cairo.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

namespace heng {

namespace {

constexpr double kWidth = 900, kHeight = 480;
constexpr double kLeft = 60, kRight = 110, kTop = 50, kBottom = 50;

/// Okabe and Ito's palette: told apart by colour-blind readers too.
constexpr std::array<std::array<double, 3>, 7> kColours{{{0.00, 0.45, 0.70},
                                                         {0.90, 0.62, 0.00},
                                                         {0.00, 0.62, 0.45},
                                                         {0.80, 0.47, 0.65},
                                                         {0.34, 0.71, 0.91},
                                                         {0.84, 0.37, 0.00},
                                                         {0.00, 0.00, 0.00}}};

class Canvas {
 public:
  Canvas(cairo_t* cairo, const WeightPlot& plot) : cairo_(cairo), plot_(plot) {
    for (const auto& rows : {plot.shares, plot.targets}) {
      for (const auto& row : rows) {
        for (const double share : row) top_ = std::max(top_, share);
      }
    }
    top_ = std::min(1.0, std::ceil(top_ * 10 + 0.5) / 10);
  }

  void draw() {
    cairo_set_source_rgb(cairo_, 1, 1, 1);
    cairo_paint(cairo_);
    cairo_select_font_face(cairo_, "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
    axes();
    for (const auto& [iteration, text] : plot_.marks) mark(iteration, text);
    for (std::size_t worker = 0; worker < plot_.workers.size(); ++worker) {
      colour(worker);
      const double dashes[] = {4, 4};
      cairo_set_dash(cairo_, dashes, 2, 0);
      cairo_set_line_width(cairo_, 1);
      line(plot_.targets, worker);
      cairo_set_dash(cairo_, nullptr, 0, 0);
      cairo_set_line_width(cairo_, 2.2);
      line(plot_.shares, worker);
    }
    labels();
  }

 private:
  double x(double iteration) const {
    const double last = static_cast<double>(std::max<std::size_t>(plot_.shares.size(), 2) - 1);
    return kLeft + iteration / last * (kWidth - kLeft - kRight);
  }
  double y(double share) const { return kHeight - kBottom - share / top_ * (kHeight - kTop - kBottom); }
  void colour(std::size_t worker) {
    const auto& rgb = kColours[worker % kColours.size()];
    cairo_set_source_rgb(cairo_, rgb[0], rgb[1], rgb[2]);
  }

  /// `align`: 0 = starts there, 0.5 = centred, 1 = ends there.
  void text(double at_x, double at_y, const std::string& what, double size, double align) {
    cairo_set_font_size(cairo_, size);
    cairo_text_extents_t extents;
    cairo_text_extents(cairo_, what.c_str(), &extents);
    cairo_move_to(cairo_, at_x - align * extents.width, at_y);
    cairo_show_text(cairo_, what.c_str());
  }

  void axes() {
    cairo_set_line_width(cairo_, 0.6);
    for (double share = 0; share <= top_ + 1e-9; share += 0.1) {
      cairo_set_source_rgb(cairo_, 0.85, 0.85, 0.85);
      cairo_move_to(cairo_, kLeft, y(share));
      cairo_line_to(cairo_, kWidth - kRight, y(share));
      cairo_stroke(cairo_);
      cairo_set_source_rgb(cairo_, 0.3, 0.3, 0.3);
      text(kLeft - 8, y(share) + 4, fmt::format("{:.1f}", share), 12, 1);
    }
    std::size_t step = 1;  // times 2 and 5 in turn: 1, 2, 10, 20, ...
    for (bool two = true; plot_.shares.size() > 12 * step; two = !two) step *= two ? 2 : 5;
    for (std::size_t iteration = 0; iteration < plot_.shares.size(); iteration += step) {
      text(x(static_cast<double>(iteration)), kHeight - kBottom + 18, std::to_string(iteration), 12, 0.5);
    }
    text((kLeft + kWidth - kRight) / 2, kHeight - 12, "iteration", 13, 0.5);
    cairo_set_source_rgb(cairo_, 0, 0, 0);
    text(kLeft, 28, plot_.title, 16, 0);
    if (!plot_.targets.empty()) text(kWidth - kRight, 28, "dashed: true share of speed", 12, 1);
  }

  void mark(std::size_t iteration, const std::string& what) {
    const double at = x(static_cast<double>(iteration));
    cairo_set_source_rgb(cairo_, 0.5, 0.5, 0.5);
    cairo_set_line_width(cairo_, 1);
    cairo_move_to(cairo_, at, kTop);
    cairo_line_to(cairo_, at, kHeight - kBottom);
    cairo_stroke(cairo_);
    text(at + 5, kTop + 10, what, 12, 0);
  }

  void line(const std::vector<std::vector<double>>& rows, std::size_t worker) {
    cairo_new_path(cairo_);  // text leaves a point behind
    for (std::size_t iteration = 0; iteration < rows.size(); ++iteration) {
      if (worker >= rows[iteration].size()) continue;
      cairo_line_to(cairo_, x(static_cast<double>(iteration)), y(rows[iteration][worker]));
    }
    cairo_stroke(cairo_);
  }

  /// At the ends of the lines, pushed apart where they would overlap.
  void labels() {
    if (plot_.shares.empty()) return;
    std::vector<std::pair<double, std::size_t>> ends;
    for (std::size_t worker = 0; worker < plot_.workers.size(); ++worker) {
      if (worker < plot_.shares.back().size()) ends.emplace_back(y(plot_.shares.back()[worker]), worker);
    }
    std::ranges::sort(ends);
    double previous = -1e9;
    for (auto& [at, worker] : ends) {
      at = std::max(at, previous + 15);
      previous = at;
      colour(worker);
      text(kWidth - kRight + 8, at + 4,
           fmt::format("{}  {:.3f}", plot_.workers[worker], plot_.shares.back()[worker]), 13, 0);
    }
  }

  cairo_t* cairo_;
  const WeightPlot& plot_;
  double top_ = 0.2;
};

}  // namespace

bool is_plot_path(const std::string& path) { return path.ends_with(".svg") || path.ends_with(".png"); }

Result<void> write_plot(const WeightPlot& plot, const std::string& path) {
  if (!is_plot_path(path))
    return fail(ErrorCode::invalid, fmt::format("'{}' must end in .svg or .png", path));
  const bool svg = path.ends_with(".svg");
  const std::unique_ptr<cairo_surface_t, void (*)(cairo_surface_t*)> surface(
      svg ? cairo_svg_surface_create(path.c_str(), kWidth, kHeight)
          : cairo_image_surface_create(CAIRO_FORMAT_RGB24, static_cast<int>(kWidth),
                                       static_cast<int>(kHeight)),
      cairo_surface_destroy);
  {
    const std::unique_ptr<cairo_t, void (*)(cairo_t*)> cairo(cairo_create(surface.get()), cairo_destroy);
    Canvas(cairo.get(), plot).draw();
  }
  if (svg) cairo_surface_finish(surface.get());  // writes the file
  const cairo_status_t status =
      svg ? cairo_surface_status(surface.get()) : cairo_surface_write_to_png(surface.get(), path.c_str());
  if (status != CAIRO_STATUS_SUCCESS) {
    return fail(ErrorCode::io, fmt::format("cannot write '{}': {}", path, cairo_status_to_string(status)));
  }
  return {};
}

}  // namespace heng
