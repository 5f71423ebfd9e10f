#include "logit_rows.hpp"

#include <cstring>
#include <limits>

#include "clones.hpp"
#include "half.hpp"

namespace hiresvit {

namespace {

constexpr std::int32_t kInfinite = 0x7f800000;

// A pass over one class of a row, from point `begin` on.
struct Pass {
  const float* values;
  int cls;
  float* best;
  float* second;
  std::int32_t* index;
  std::int32_t*
      magnitude;  // bits of the greatest magnitude, which order as the numbers do, with infinity and NaN above
};

void plain_pass(const Pass& pass, int begin, int end) {
  for (int x = begin; x < end; ++x) {
    const float value = pass.values[x], best = pass.best[x];
    std::int32_t bits;
    std::memcpy(&bits, &value, 4);
    bits &= 0x7fffffff;
    if (bits > pass.magnitude[x]) pass.magnitude[x] = bits;
    if (value > best) {
      pass.second[x] = best;
      pass.best[x] = value;
      pass.index[x] = pass.cls;
    } else if (value > pass.second[x]) {
      pass.second[x] = value;
    }
  }
}

#ifdef HIRESVIT_AVX2

// Up to kMost classes in one pass over what is known so far. Returns how many points were looked at.
constexpr int kMost = 4;

template <int kClasses>
HIRESVIT_AVX2 int fast_passes(const float* values, std::size_t stride, int cls, const Pass& to, int width) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  int x = 0;
  for (; x + 8 <= width; x += 8) {
    __m256 best = _mm256_loadu_ps(to.best + x), second = _mm256_loadu_ps(to.second + x);
    __m256 index = _mm256_loadu_ps(reinterpret_cast<const float*>(to.index + x));
    auto* most = reinterpret_cast<__m256i*>(to.magnitude + x);
    __m256i bits = _mm256_loadu_si256(most);
    for (int k = 0; k < kClasses; ++k) {
      const __m256 value = _mm256_loadu_ps(values + static_cast<std::size_t>(k) * stride + x);
      const __m256 ahead = _mm256_cmp_ps(value, best, _CMP_GT_OQ);
      bits = _mm256_max_epi32(bits, _mm256_and_si256(_mm256_castps_si256(value), magnitude));
      second = _mm256_max_ps(second, _mm256_min_ps(value, best));
      best = _mm256_max_ps(best, value);
      index = _mm256_blendv_ps(index, _mm256_castsi256_ps(_mm256_set1_epi32(cls + k)), ahead);
    }
    _mm256_storeu_ps(to.best + x, best);
    _mm256_storeu_ps(to.second + x, second);
    _mm256_storeu_ps(reinterpret_cast<float*>(to.index + x), index);
    _mm256_storeu_si256(most, bits);
  }
  return x;
}

__attribute__((target("avx2,f16c"))) void fast_halves(const std::uint16_t* from, int width, float* to) {
  int x = 0;
  for (; x + 8 <= width; x += 8) {
    _mm256_storeu_ps(to + x, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + x))));
  }
  for (; x < width; ++x) to[x] = from_half(from[x]);
}

#endif

void copy_halves(const std::uint16_t* from, int width, float* to) {
#ifdef HIRESVIT_AVX2
  static const bool fast = has_avx2() && __builtin_cpu_supports("f16c");
  if (fast) return fast_halves(from, width, to);
#endif
  for (int x = 0; x < width; ++x) to[x] = from_half(from[x]);
}

// All classes of a row. With AVX2 some at a time, so that what is known is read and written less often.
void all_passes(const float* values, std::size_t stride, int classes, const Pass& to, int width) {
  int cls = 0, done = 0;
#ifdef HIRESVIT_AVX2
  if (has_avx2()) {
    for (; cls + kMost <= classes; cls += kMost) {
      done = fast_passes<kMost>(values + static_cast<std::size_t>(cls) * stride, stride, cls, to, width);
    }
    for (int rest = cls; rest < classes; ++rest) {
      done = fast_passes<1>(values + static_cast<std::size_t>(rest) * stride, stride, rest, to, width);
    }
  }
#endif
  for (cls = 0; cls < classes && done < width; ++cls) {
    Pass pass = to;
    pass.values = values + static_cast<std::size_t>(cls) * stride;
    pass.cls = cls;
    plain_pass(pass, done, width);
  }
}

}  // namespace

void LogitRows::prepare(int classes, int width) {
  held_[0] = held_[1] = -1;
  classes_ = classes;
  width_ = width;
  stride_ = (static_cast<std::size_t>(width) + 15) / 16 * 16 + 16;  // no power of two, which would share a cache's set
  const auto points = static_cast<std::size_t>(width);
  for (int i = 0; i < 2; ++i) {
    const std::size_t all = static_cast<std::size_t>(classes) * stride_;
    if (values_[i].size() < all) values_[i].resize(all);
    if (facts_[i].best.size() < points) {
      facts_[i].best.resize(points);
      facts_[i].margin.resize(points);
      facts_[i].index.resize(points);
    }
  }
  if (magnitudes_.size() < points) magnitudes_.resize(points);
}

void LogitRows::hold(const Logits& logits, int first, int second) {
  for (const int row : {first, second}) {
    if (held_[row & 1] != row) load(logits, row);
  }
}

void LogitRows::load(const Logits& logits, int row) {
  const int place = row & 1;
  held_[place] = row;
  float* values = values_[place].data();
  for (int cls = 0; cls < classes_; ++cls) {
    const std::ptrdiff_t from = cls * logits.class_stride + row * logits.row_stride;
    float* to = values + static_cast<std::size_t>(cls) * stride_;
    if (logits.half) {
      copy_halves(static_cast<const std::uint16_t*>(logits.data) + from, width_, to);
    } else {
      std::memcpy(to, static_cast<const float*>(logits.data) + from, static_cast<std::size_t>(width_) * sizeof(float));
    }
  }
  RowFacts& facts = facts_[place];
  for (int x = 0; x < width_; ++x) {
    facts.best[static_cast<std::size_t>(x)] = facts.margin[static_cast<std::size_t>(x)] =
        -std::numeric_limits<float>::infinity();
    facts.index[static_cast<std::size_t>(x)] = magnitudes_[static_cast<std::size_t>(x)] = 0;
  }
  all_passes(values, stride_, classes_,
             Pass{nullptr, 0, facts.best.data(), facts.margin.data(), facts.index.data(), magnitudes_.data()}, width_);
  std::int32_t most = 0;
  for (int x = 0; x < width_; ++x) {
    most = magnitudes_[static_cast<std::size_t>(x)] > most ? magnitudes_[static_cast<std::size_t>(x)] : most;
    facts.margin[static_cast<std::size_t>(x)] =
        facts.best[static_cast<std::size_t>(x)] - facts.margin[static_cast<std::size_t>(x)];
  }
  std::memcpy(&facts.most, &most, 4);
  facts.finite = most < kInfinite;
}

}  // namespace hiresvit
