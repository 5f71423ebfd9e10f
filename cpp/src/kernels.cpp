#include "kernels.hpp"

#include <cstring>

#include "clones.hpp"

namespace hiresvit {

namespace {

constexpr std::int32_t kHalf = 1 << (kPillowBits - 1);

std::uint8_t level(std::int32_t value) {
  value >>= kPillowBits;
  return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

void plain_across(const std::uint8_t* row, const Taps& columns, int count, std::uint8_t* out) {
  const std::int32_t* weights = columns.weights.data();
  for (int x = 0; x < count; ++x, weights += columns.taps) {
    const std::uint8_t* from = row + static_cast<std::ptrdiff_t>(columns.starts[static_cast<std::size_t>(x)]) * 4;
    std::int32_t sums[4] = {kHalf, kHalf, kHalf, kHalf};
    for (int t = 0; t < columns.taps; ++t) {
      for (int c = 0; c < 4; ++c) sums[c] += from[4 * t + c] * weights[t];
    }
    for (int c = 0; c < 4; ++c) out[4 * x + c] = level(sums[c]);
  }
}

void plain_down(const std::uint8_t* const* rows, const std::int32_t* weights, int taps, int bytes, std::uint8_t* out) {
  for (int x = 0; x < bytes; x += 64) {
    std::int32_t sums[64];
    for (int i = 0; i < 64; ++i) sums[i] = kHalf;
    for (int t = 0; t < taps; ++t) {
      const std::uint8_t* row = rows[t] + x;
      for (int i = 0; i < 64; ++i) sums[i] += row[i] * weights[t];
    }
    for (int i = 0; i < 64; ++i) out[x + i] = level(sums[i]);
  }
}

#ifdef HIRESVIT_AVX2

inline __m128i eight(const std::uint8_t* from) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)); }

// Two taps at a time: eight lanes are the four channels of two neighbours. kPairs 0: as many as there are.
template <int kPairs>
HIRESVIT_AVX2 void fast_across(const std::uint8_t* row, const Taps& columns, int count, std::uint8_t* out) {
  const int pairs = kPairs ? kPairs : columns.taps / 2;
  const __m256i spread = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1),
                half = _mm256_setr_epi32(kHalf, kHalf, kHalf, kHalf, 0, 0, 0, 0);
  const auto* weights = reinterpret_cast<const std::uint8_t*>(columns.weights.data());
  const int* starts = columns.starts.data();
  for (int x = 0; x < count; ++x, weights += 8 * pairs) {
    const std::uint8_t* from = row + static_cast<std::ptrdiff_t>(starts[x]) * 4;
    __m256i sum = half;
    for (int pair = 0; pair < pairs; ++pair) {
      const __m256i two = _mm256_cvtepu8_epi32(eight(from + 8 * pair));
      const __m256i both = _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(eight(weights + 8 * pair)), spread);
      sum = _mm256_add_epi32(sum, _mm256_mullo_epi32(two, both));
    }
    __m128i value = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    value = _mm_srai_epi32(value, kPillowBits);
    value = _mm_packs_epi32(value, value);
    const int pixel = _mm_cvtsi128_si32(_mm_packus_epi16(value, value));
    std::memcpy(out + static_cast<std::ptrdiff_t>(x) * 4, &pixel, 4);
  }
}

HIRESVIT_AVX2 void fast_down(const std::uint8_t* const* rows, const std::int32_t* weights, int taps, int bytes,
                             std::uint8_t* out) {
  // What packs makes of four times eight lanes, in order.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (int x = 0; x < bytes; x += 32) {
    __m256i a = _mm256_set1_epi32(kHalf), b = a, c = a, d = a;
    for (int t = 0; t < taps; ++t) {
      const std::uint8_t* row = rows[t] + x;
      const __m256i weight = _mm256_set1_epi32(weights[t]);
      a = _mm256_add_epi32(a, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(eight(row)), weight));
      b = _mm256_add_epi32(b, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(eight(row + 8)), weight));
      c = _mm256_add_epi32(c, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(eight(row + 16)), weight));
      d = _mm256_add_epi32(d, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(eight(row + 24)), weight));
    }
    const __m256i low = _mm256_packs_epi32(_mm256_srai_epi32(a, kPillowBits), _mm256_srai_epi32(b, kPillowBits));
    const __m256i high = _mm256_packs_epi32(_mm256_srai_epi32(c, kPillowBits), _mm256_srai_epi32(d, kPillowBits));
    const __m256i all = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + x), all);
  }
}

#endif

}  // namespace

void pillow_across(const std::uint8_t* row, const Taps& columns, int count, std::uint8_t* out) {
#ifdef HIRESVIT_AVX2
  if (has_avx2()) {
    switch (columns.taps) {
      case 2: return fast_across<1>(row, columns, count, out);
      case 4: return fast_across<2>(row, columns, count, out);
      case 6: return fast_across<3>(row, columns, count, out);
      default: return fast_across<0>(row, columns, count, out);
    }
  }
#endif
  plain_across(row, columns, count, out);
}

void pillow_down(const std::uint8_t* const* rows, const std::int32_t* weights, int taps, int bytes, std::uint8_t* out) {
#ifdef HIRESVIT_AVX2
  if (has_avx2()) return fast_down(rows, weights, taps, bytes, out);
#endif
  plain_down(rows, weights, taps, bytes, out);
}

HIRESVIT_CLONES void opencv_across(const std::uint8_t* row, const Taps& columns, int count, std::uint16_t* out) {
  for (int x = 0; x < count; ++x) {
    const std::uint8_t* from = row + static_cast<std::ptrdiff_t>(columns.starts[static_cast<std::size_t>(x)]) * 4;
    const std::int32_t* weights = &columns.weights[static_cast<std::size_t>(x) * 2];
    for (int c = 0; c < 4; ++c) {
      out[4 * x + c] = static_cast<std::uint16_t>((from[c] * weights[0] + from[4 + c] * weights[1]) >> 4);
    }
  }
}

HIRESVIT_CLONES void opencv_down(const std::uint16_t* __restrict upper, const std::uint16_t* __restrict lower,
                                 const std::int32_t* weights, int values, std::uint8_t* __restrict out) {
  const std::int32_t above = weights[0], below = weights[1];
  for (int x = 0; x < values; ++x) {
    out[x] = static_cast<std::uint8_t>(((upper[x] * above >> 16) + (lower[x] * below >> 16) + 2) >> 2);
  }
}

}  // namespace hiresvit
