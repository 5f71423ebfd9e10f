// Which sizes a picture is scaled to, and where in the input it then lies.
#pragma once

#include <cstdint>

#include "preprocess.hpp"
#include "spec.hpp"

namespace hiresvit {

// Scaled to `sizes` one after the other; of the last the part from (top, left), of `region`'s size, is taken and lies
// at `region` in the input.
struct Placement {
  struct {
    std::int64_t height, width;
  } sizes[2];
  int count;
  std::int64_t top, left;
  Region region;
};

// For any resize but slide, of which it is the whole scaled picture. Throws Error (bad input) for a picture that cannot
// be scaled.
Placement place(Size size, const PreprocessSpec& spec, Size imgsz);

// Throws Error (usage) for a spec that cannot be served.
void check_spec(const PreprocessSpec& spec, Size imgsz);

}  // namespace hiresvit
