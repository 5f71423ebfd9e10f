#include "colours.hpp"

#include <cmath>
#include <cstring>

#include "clones.hpp"

namespace hiresvit {

namespace {

using Matrix = std::array<std::array<double, 3>, 3>;

Matrix inverse(const Matrix& m) {
  const auto minor = [&](int r, int c) {
    const int r0 = (r + 1) % 3, r1 = (r + 2) % 3, c0 = (c + 1) % 3, c1 = (c + 2) % 3;
    return m[r0][c0] * m[r1][c1] - m[r0][c1] * m[r1][c0];
  };
  const double determinant = m[0][0] * minor(0, 0) + m[0][1] * minor(0, 1) + m[0][2] * minor(0, 2);
  Matrix result;
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) result[r][c] = minor(c, r) / determinant;
  }
  return result;
}

inline std::int32_t byte_of(std::int32_t value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

void put(std::uint8_t* out, std::uint32_t pixel) { std::memcpy(out, &pixel, 4); }

HIRESVIT_CLONES void expand_nv12(const std::uint8_t* __restrict luma, const std::uint8_t* __restrict chroma, int pairs,
                                 const Colours& colours, std::uint8_t* __restrict out) {
  const auto& m = colours.to_rgb;
  const std::int32_t y = m[0][0], r_cr = m[0][2], g_cb = m[1][1], g_cr = m[1][2], b_cb = m[2][1];
  const std::int32_t r0 = colours.bias[0] + 4096, g0 = colours.bias[1] + 4096, b0 = colours.bias[2] + 4096;
  auto* __restrict pixels = reinterpret_cast<std::uint32_t*>(out);  // buffers of ours, which are aligned
  for (int i = 0; i < pairs; ++i) {
    const std::int32_t cb = chroma[2 * i], cr = chroma[2 * i + 1];
    const std::int32_t r = r0 + r_cr * cr, g = g0 + g_cb * cb + g_cr * cr, b = b0 + b_cb * cb;
    const std::int32_t left = y * luma[2 * i], right = y * luma[2 * i + 1];
    pixels[2 * i] = static_cast<std::uint32_t>(byte_of((left + r) >> 13) | byte_of((left + g) >> 13) << 8 |
                                               byte_of((left + b) >> 13) << 16);
    pixels[2 * i + 1] = static_cast<std::uint32_t>(byte_of((right + r) >> 13) | byte_of((right + g) >> 13) << 8 |
                                                   byte_of((right + b) >> 13) << 16);
  }
}

std::uint8_t level(std::int64_t value, int bits) {
  const std::int64_t rounded = (value + (std::int64_t{1} << (bits - 1))) >> bits;
  return static_cast<std::uint8_t>(rounded < 0 ? 0 : rounded > 255 ? 255 : rounded);
}

}  // namespace

Colours make_colours(Yuv yuv) {
  Colours colours{};
  if (yuv == Yuv::none) return colours;
  const bool old = yuv == Yuv::bt601 || yuv == Yuv::bt601_full;
  const bool full = yuv == Yuv::bt601_full || yuv == Yuv::bt709_full;
  const double red = old ? 0.299 : 0.2126, blue = old ? 0.114 : 0.0722, green = 1 - red - blue;
  const double luma = full ? 1.0 : 255.0 / 219, chroma = full ? 1.0 : 255.0 / 224, black = full ? 0.0 : 16.0;
  const double r_cr = 2 * (1 - red) * chroma, b_cb = 2 * (1 - blue) * chroma;
  Matrix matrix{{{luma, 0, r_cr}, {luma, -b_cb * blue / green, -r_cr * red / green}, {luma, b_cb, 0}}};
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) {
      colours.to_rgb[r][c] = static_cast<std::int32_t>(std::nearbyint(matrix[r][c] * 8192));
      matrix[r][c] = colours.to_rgb[r][c] / 8192.0;
    }
    const auto& row = colours.to_rgb[r];
    colours.bias[r] = -(row[0] * static_cast<std::int32_t>(black) + 128 * (row[1] + row[2]));
  }
  const Matrix back = inverse(matrix);
  const double offset[3] = {black, 128, 128};
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) colours.from_rgb[r][c] = std::llrint(back[r][c] * (1 << 24));
    colours.offset[r] = static_cast<std::int64_t>(offset[r]) << 24;
  }
  return colours;
}

void expand_row(const Picture& picture, const Colours& colours, int y, std::uint8_t* out) {
  const std::uint8_t* row = picture.planes[0] + y * picture.strides[0];
  const int width = picture.width;
  switch (picture.pixels) {
    case Pixels::nv12:
      expand_nv12(row, picture.planes[1] + y / 2 * picture.strides[1], width / 2, colours, out);
      return;
    case Pixels::rgba: std::memcpy(out, row, static_cast<std::size_t>(width) * 4); return;
    case Pixels::bgra:
      for (int x = 0; x < width; ++x) {
        const std::uint8_t* p = row + 4 * x;
        put(out + 4 * x, static_cast<std::uint32_t>(p[2] | p[1] << 8 | p[0] << 16));
      }
      return;
    case Pixels::rgb:
      for (int x = 0; x + 1 < width; ++x) std::memcpy(out + 4 * x, row + 3 * x, 4);  // a byte of the next is no harm
      std::memcpy(out + 4 * (width - 1), row + 3 * (width - 1), 3);
      return;
    case Pixels::bgr:
      for (int x = 0; x < width; ++x) {
        const std::uint8_t* p = row + 3 * x;
        put(out + 4 * x, static_cast<std::uint32_t>(p[2] | p[1] << 8 | p[0] << 16));
      }
      return;
  }
}

void pack_row(const std::uint8_t* four, int width, Pixels layout, std::uint8_t* out) {
  const int red = layout == Pixels::bgr || layout == Pixels::bgra ? 2 : 0;
  const int step = channels(layout);
  for (int x = 0; x < width; ++x) {
    std::uint8_t* pixel = out + static_cast<std::ptrdiff_t>(step) * x;
    pixel[red] = four[4 * x];
    pixel[1] = four[4 * x + 1];
    pixel[2 - red] = four[4 * x + 2];
    if (step == 4) pixel[3] = 255;
  }
}

void nv12_rows(const std::uint8_t* upper, const std::uint8_t* lower, int width, const Colours& colours,
               std::uint8_t* luma_upper, std::uint8_t* luma_lower, std::uint8_t* chroma) {
  const auto& m = colours.from_rgb;
  for (int x = 0; x < width; ++x) {
    const std::uint8_t *a = upper + 4 * x, *b = lower + 4 * x;
    luma_upper[x] = level(m[0][0] * a[0] + m[0][1] * a[1] + m[0][2] * a[2] + colours.offset[0], 24);
    luma_lower[x] = level(m[0][0] * b[0] + m[0][1] * b[1] + m[0][2] * b[2] + colours.offset[0], 24);
  }
  for (int x = 0; x < width; x += 2) {
    const std::uint8_t *a = upper + 4 * x, *b = lower + 4 * x;
    const std::int64_t sum[3] = {a[0] + a[4] + b[0] + b[4], a[1] + a[5] + b[1] + b[5], a[2] + a[6] + b[2] + b[6]};
    for (int c = 0; c < 2; ++c) {
      const auto& row = m[c + 1];
      chroma[x + c] = level(row[0] * sum[0] + row[1] * sum[1] + row[2] * sum[2] + 4 * colours.offset[c + 1], 26);
    }
  }
}

}  // namespace hiresvit
