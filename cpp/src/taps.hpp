// Which source pixels make each pixel of a resized row or column, and with what weights.
#pragma once

#include <cstdint>
#include <vector>

#include "spec.hpp"

namespace hiresvit {

constexpr int kPillowBits =
    22;  // of Pillow's fixed-point weights: 32 - 8 of the grey level - 2 for the filter's swings
constexpr int kOpencvBits = 11;  // of OpenCV's

// For target pixel i: weights[i * taps + t] of source pixel starts[i] + t. Weights that are 0 fill up to `taps`, and
// may be of source pixels behind the last one.
struct Taps {
  int taps = 0;
  std::vector<int> starts;
  std::vector<std::int32_t> weights;
};

// Of target pixels `first` to first + count - 1, of `target` in all. `even` makes `taps` even. Reuses memory.
void make_taps(Filter filter, int source, std::int64_t target, std::int64_t first, int count, bool even, Taps& out);

}  // namespace hiresvit
