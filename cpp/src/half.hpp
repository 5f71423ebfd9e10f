// IEEE 754 binary16, the type of an FP16 graph's inputs and outputs.
#pragma once

#include <cstdint>
#include <cstring>

namespace hiresvit {

inline float from_half(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16, exponent = (half >> 10) & 31u, fraction = half & 0x3ffu;
  std::uint32_t bits = 0;
  if (exponent == 0) {  // zero or subnormal: a whole number of 2^-24
    const float value = static_cast<float>(fraction) * 0x1p-24f;
    std::memcpy(&bits, &value, sizeof bits);
  } else {
    bits = (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
  }
  bits |= sign;
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Rounds to nearest, halves to even; beyond 65504 it is infinite, as a cast in a graph.
inline std::uint16_t to_half(float value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t sign = (bits >> 16) & 0x8000u, size = bits & 0x7fffffffu;
  std::uint32_t half = 0;
  if (size > 0x7f800000u) {
    half = 0x7e00u;  // NaN
  } else if (size >= 0x477ff000u) {
    half = 0x7c00u;
  } else if (size < 0x38800000u) {  // below 2^-14: adding 0.5 leaves a whole number of 2^-24 in the lowest bits
    float shifted = 0;
    std::memcpy(&shifted, &size, sizeof shifted);
    shifted += 0.5f;
    std::memcpy(&half, &shifted, sizeof half);
    half -= 0x3f000000u;
  } else {
    half = (size - 0x38000000u + 0xfffu + ((size >> 13) & 1u)) >> 13;
  }
  return static_cast<std::uint16_t>(half | sign);
}

}  // namespace hiresvit
