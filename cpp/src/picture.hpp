// A picture as it lies in the caller's memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "error.hpp"

namespace hiresvit {

enum class Pixels { rgb, bgr, rgba, bgra, nv12 };
enum class Yuv { none, bt601, bt709, bt601_full, bt709_full };

constexpr int kMostSide = 1 << 16;  // pixels, as in hiresvit/schema.py

// `height` x `width` pixels. Packed layouts have one plane of 3 or 4 bytes a pixel (alpha is not looked at); NV12 has
// luma in planes[0] and interleaved Cb, Cr of half the height in planes[1]. A stride is the bytes from one row to the
// next.
struct Picture {
  Pixels pixels = Pixels::rgb;
  Yuv yuv = Yuv::none;
  int height = 0;
  int width = 0;
  const std::uint8_t* planes[2] = {nullptr, nullptr};
  std::ptrdiff_t strides[2] = {0, 0};
};

inline int channels(Pixels pixels) {
  return pixels == Pixels::nv12 ? 1 : (pixels == Pixels::rgb || pixels == Pixels::bgr) ? 3 : 4;
}

// Throws Error (bad input) unless every byte that the picture claims can be there: sides from 1 to 2^16, planes,
// strides of at least a row, even sides and a colour matrix for NV12.
void check_picture(const Picture& picture);

// The same picture with rows that lie behind each other, in memory that begins at `data` (NV12: luma, then chroma).
Picture packed_picture(Pixels pixels, Yuv yuv, int height, int width, const std::uint8_t* data);

// Bytes of such a picture; 0 where the sides are no sides.
std::size_t packed_bytes(Pixels pixels, int height, int width);

}  // namespace hiresvit
