// From a detector's raw outputs to boxes in the picture's pixels: hiresvit/runtime/boxes.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "hiresvit/hiresvit.h"
#include "spec.hpp"

namespace hiresvit {

// What a network gives for one stride: logits (A*K, height, width) and deltas (A*4, height, width), float32 or float16.
struct BoxMaps {
  const void* logits = nullptr;
  const void* deltas = nullptr;
  bool logits_half = false;
  bool deltas_half = false;
};

using Detection = hiresvit_detection;

// Of a level's map.
Size map_size(Size imgsz, int stride);

// Keeps its buffers, which are as large as they can ever have to be. Not for two threads at once.
class Boxes {
 public:
  Boxes(const AnchorSpec& anchors, int classes, const PreprocessSpec& preprocess, Size imgsz);

  // The boxes of a picture of a size, the best first, at most `most`: returns how many. `levels` are by the strides of
  // the anchors, in their order. Throws Error (failed) for an output that is NaN or Inf.
  int find(const std::vector<BoxMaps>& levels, Size picture, int most, Detection* out);

 private:
  struct Candidate {
    float logit;
    std::uint32_t level;
    std::size_t place;  // ((y * map's width + x) * A + anchor) * K + class
    double score;
    double box[4];  // in the picture's pixels
  };
  static bool before(const Candidate& a, const Candidate& b);
  static bool before_in_all(const Candidate& a, const Candidate& b);
  static bool show(Candidate& one, const Region& region, Size picture);
  void collect(const BoxMaps& maps, std::uint32_t level);
  void decode(const BoxMaps& maps, Candidate& one) const;
  std::int32_t label_of(const Candidate& one) const {
    return static_cast<std::int32_t>(one.place % static_cast<std::size_t>(classes_));
  }

  AnchorSpec anchors_;
  int classes_;
  PreprocessSpec preprocess_;
  Size imgsz_;
  double least_;  // a logit above it is a score above the threshold
  std::vector<Candidate> level_, candidates_, kept_;
};

}  // namespace hiresvit
