// Small vectors and matrices over the parameters that are fitted.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

namespace heng::fitting {

inline constexpr std::size_t kSize = 5;
using Vector = std::array<double, kSize>;
using Matrix = std::array<Vector, kSize>;

inline Vector plus(Vector a, const Vector& b, double factor = 1) {
  for (std::size_t i = 0; i < kSize; ++i) a[i] += factor * b[i];
  return a;
}

/// Of a positive definite system, by Cholesky.
inline Matrix inverse(const Matrix& a) {
  Matrix l{}, result{};
  for (std::size_t i = 0; i < kSize; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = a[i][j];
      for (std::size_t k = 0; k < j; ++k) sum -= l[i][k] * l[j][k];
      l[i][j] = i == j ? std::sqrt(std::max(sum, 1e-30)) : sum / l[j][j];
    }
  }
  for (std::size_t column = 0; column < kSize; ++column) {
    Vector x{};
    for (std::size_t i = 0; i < kSize; ++i) {
      double sum = i == column ? 1 : 0;
      for (std::size_t k = 0; k < i; ++k) sum -= l[i][k] * x[k];
      x[i] = sum / l[i][i];
    }
    for (std::size_t i = kSize; i-- > 0;) {
      for (std::size_t k = i + 1; k < kSize; ++k) x[i] -= l[k][i] * x[k];
      x[i] /= l[i][i];
    }
    for (std::size_t i = 0; i < kSize; ++i) result[i][column] = x[i];
  }
  return result;
}

inline Vector times(const Matrix& a, const Vector& x) {
  Vector y{};
  for (std::size_t i = 0; i < kSize; ++i) y[i] = std::inner_product(a[i].begin(), a[i].end(), x.begin(), 0.0);
  return y;
}

/// The longest of the components' differences.
inline double distance(const Vector& a, const Vector& b) {
  double longest = 0;
  for (std::size_t i = 0; i < kSize; ++i) longest = std::max(longest, std::abs(a[i] - b[i]));
  return longest;
}

}  // namespace heng::fitting
