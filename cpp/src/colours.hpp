// Rows of any layout to rows of four bytes a pixel (red, green, blue and one that nobody looks at), and back.
#pragma once

#include <array>
#include <cstdint>

#include "picture.hpp"

namespace hiresvit {

// hiresvit/data/pixels.py's matrices as whole numbers: to RGB in 8192ths, from RGB in 2^-24ths.
struct Colours {
  std::array<std::array<std::int32_t, 3>, 3> to_rgb;
  std::array<std::int32_t, 3> bias;
  std::array<std::array<std::int64_t, 3>, 3> from_rgb;
  std::array<std::int64_t, 3> offset;
};

Colours make_colours(Yuv yuv);  // of none: zeros

// Row `y` of a picture into width x 4 bytes at `out`.
void expand_row(const Picture& picture, const Colours& colours, int y, std::uint8_t* out);

// A row of four bytes a pixel into one of a packed layout; alpha becomes 255.
void pack_row(const std::uint8_t* four, int width, Pixels layout, std::uint8_t* out);

// Two rows of four bytes a pixel into two of luma and one of chroma.
void nv12_rows(const std::uint8_t* upper, const std::uint8_t* lower, int width, const Colours& colours,
               std::uint8_t* luma_upper, std::uint8_t* luma_lower, std::uint8_t* chroma);

}  // namespace hiresvit
