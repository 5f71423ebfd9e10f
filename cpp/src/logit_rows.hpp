// Two neighbouring rows of logits at a time: copied side by side, and what is known of each of their points.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "postprocess.hpp"

namespace hiresvit {

// Of each point of a row: the best class, of equals the lowest, and by how much it is ahead of the second.
struct RowFacts {
  std::vector<float> best;
  std::vector<float> margin;
  std::vector<std::int32_t> index;
  float most = 0;  // of all magnitudes
  bool finite = true;
};

class LogitRows {
 public:
  void prepare(int classes, int width);

  // Makes rows `first` and `second` (which may be the same) those that are held. Sources lie as `logits` says.
  void hold(const Logits& logits, int first, int second);

  const RowFacts& facts(int row) const { return facts_[row & 1]; }
  const float* values(int row, int cls) const {
    return values_[row & 1].data() + static_cast<std::size_t>(cls) * stride_;
  }
  std::size_t stride() const { return stride_; }  // from a class to the next

 private:
  void load(const Logits& logits, int row);
  int held_[2] = {-1, -1};
  int classes_ = 0, width_ = 0;
  std::size_t stride_ = 0;
  std::vector<float> values_[2];
  std::vector<std::int32_t> magnitudes_;
  RowFacts facts_[2];
};

}  // namespace hiresvit
