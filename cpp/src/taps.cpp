#include "taps.hpp"

#include <algorithm>
#include <cmath>

namespace hiresvit {

namespace {

constexpr double kPi = 3.14159265358979323846;

double sinc(double x) { return x == 0 ? 1.0 : std::sin(x * kPi) / (x * kPi); }

double weight(Filter filter, double x) {
  switch (filter) {
    case Filter::lanczos: return -3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0.0;
    case Filter::bicubic: {
      constexpr double a = -0.5;
      x = std::fabs(x);
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
    }
    default: x = std::fabs(x); return x < 1 ? 1 - x : 0.0;
  }
}

double reach(Filter filter) { return filter == Filter::lanczos ? 3 : filter == Filter::bicubic ? 2 : 1; }

// Weights of one target pixel, found one after the other, into the table: without the zeros at both ends.
void place(const std::vector<std::int32_t>& found, int start, int index, Taps& out) {
  std::size_t first = 0, last = found.size();
  while (first < last && found[first] == 0) ++first;
  while (last > first && found[last - 1] == 0) --last;
  out.starts[static_cast<std::size_t>(index)] = first < last ? start + static_cast<int>(first) : start;
  std::copy(found.begin() + static_cast<std::ptrdiff_t>(first), found.begin() + static_cast<std::ptrdiff_t>(last),
            out.weights.begin() + static_cast<std::ptrdiff_t>(index) * out.taps);
}

// Pillow: a filter as wide as the scale, its weights normalised to a sum of 1, then rounded to 22 bits.
void pillow_taps(Filter filter, int source, std::int64_t target, std::int64_t first, int count, Taps& out) {
  const double scale = static_cast<double>(source) / static_cast<double>(target), wide = std::max(scale, 1.0);
  const double support = reach(filter) * wide, each = 1.0 / wide;
  out.taps = std::min(static_cast<int>(std::ceil(support)) * 2 + 1, source);
  out.weights.assign(static_cast<std::size_t>(count) * static_cast<std::size_t>(out.taps), 0);
  std::vector<double> exact;
  std::vector<std::int32_t> found;
  for (int i = 0; i < count; ++i) {
    const double centre = (static_cast<double>(first + i) + 0.5) * scale;
    const int from = std::max(static_cast<int>(centre - support + 0.5), 0);
    const int to = std::min(static_cast<int>(centre + support + 0.5), source);
    exact.clear();
    found.clear();
    double sum = 0;
    for (int x = from; x < to; ++x) {
      exact.push_back(weight(filter, (x - centre + 0.5) * each));
      sum += exact.back();
    }
    for (const double one : exact) {
      const double scaled = (sum != 0 ? one / sum : one) * (1 << kPillowBits);
      found.push_back(static_cast<std::int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5));
    }
    place(found, from, i, out);
  }
}

// OpenCV: two neighbours whatever the scale; positions are float on the way. Beyond an edge stands the edge once more.
void opencv_taps(int source, std::int64_t target, std::int64_t first, int count, Taps& out) {
  const double scale = 1 / (static_cast<double>(target) / source);
  out.taps = 2;
  out.weights.assign(static_cast<std::size_t>(count) * 2, 0);
  for (int i = 0; i < count; ++i) {
    const float centre = static_cast<float>((static_cast<double>(first + i) + 0.5) * scale - 0.5);
    const float below = std::floor(centre), part = centre - below;
    const int index = static_cast<int>(below);
    out.starts[static_cast<std::size_t>(i)] = index;
    out.weights[static_cast<std::size_t>(i) * 2] = static_cast<std::int32_t>(std::nearbyint((1 - part) * 2048));
    out.weights[static_cast<std::size_t>(i) * 2 + 1] = static_cast<std::int32_t>(std::nearbyint(part * 2048));
  }
}

// The most weights that a target pixel really has, rounded up to even where that is asked for.
void tighten(bool even, Taps& out) {
  const int had = out.taps, count = static_cast<int>(out.starts.size());
  int most = 1;
  for (int i = 0; i < count; ++i) {
    const std::int32_t* row = &out.weights[static_cast<std::size_t>(i) * static_cast<std::size_t>(had)];
    for (int t = most; t < had; ++t) {
      if (row[t]) most = t + 1;
    }
  }
  const int now = even ? (most + 1) / 2 * 2 : most;
  std::vector<std::int32_t> weights(static_cast<std::size_t>(count) * static_cast<std::size_t>(now), 0);
  for (int i = 0; i < count; ++i) {
    const auto row = out.weights.begin() + static_cast<std::ptrdiff_t>(i) * had;
    std::copy(row, row + most, weights.begin() + static_cast<std::ptrdiff_t>(i) * now);
  }
  out.taps = now;
  out.weights.swap(weights);
}

}  // namespace

void make_taps(Filter filter, int source, std::int64_t target, std::int64_t first, int count, bool even, Taps& out) {
  out.starts.assign(static_cast<std::size_t>(count), 0);
  if (filter == Filter::opencv) {
    opencv_taps(source, target, first, count, out);
  } else {
    pillow_taps(filter, source, target, first, count, out);
    tighten(even, out);
  }
}

}  // namespace hiresvit
