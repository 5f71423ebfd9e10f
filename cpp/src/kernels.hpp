// The inner loops of resizing: rows of four bytes a pixel.
#pragma once

#include <cstddef>
#include <cstdint>

#include "taps.hpp"

namespace hiresvit {

// Pixels that lie in front of a row.
constexpr int kPad = 8;

// Bytes of rows that loops may take whole blocks of.
constexpr std::size_t whole_blocks(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

// Across: `count` pixels out of a row, behind which as many as there are taps may be read, rounded to 8 bits.
// `columns.taps` is even.
void pillow_across(const std::uint8_t* row, const Taps& columns, int count, std::uint8_t* out);

// Down: `taps` rows to one. Reads and writes whole blocks of 64 bytes.
void pillow_down(const std::uint8_t* const* rows, const std::int32_t* weights, int taps, int bytes, std::uint8_t* out);

// The same for OpenCV: cut to 16 bits in between. `columns.starts` may be -1.
void opencv_across(const std::uint8_t* row, const Taps& columns, int count, std::uint16_t* out);
void opencv_down(const std::uint16_t* upper, const std::uint16_t* lower, const std::int32_t* weights, int values,
                 std::uint8_t* out);

}  // namespace hiresvit
