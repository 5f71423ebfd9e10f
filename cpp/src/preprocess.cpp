#include "preprocess.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "clones.hpp"
#include "colours.hpp"
#include "error.hpp"
#include "geometry.hpp"
#include "resize.hpp"

namespace hiresvit {

namespace {

using Bytes = std::vector<std::uint8_t>;

// The 256 values of each of the network's channels: (x / 255 - mean) / std in float, as numpy computes them.
struct Levels {
  float of[3][256];
  int from[3];  // which of red, green and blue each channel is
};

Levels make_levels(const PreprocessSpec& spec) {
  Levels levels{};
  for (int c = 0; c < 3; ++c) {
    const auto mean = static_cast<float>(spec.mean[static_cast<std::size_t>(c)]);
    const auto std = static_cast<float>(spec.std[static_cast<std::size_t>(c)]);
    for (int x = 0; x < 256; ++x) levels.of[c][x] = (static_cast<float>(x) / 255.0f - mean) / std;
    levels.from[c] = spec.bgr ? 2 - c : c;
  }
  return levels;
}

void normalise_row(const std::uint8_t* __restrict four, int width, const Levels& levels, float* const out[3]) {
  float* __restrict first = out[0];
  float* __restrict second = out[1];
  float* __restrict third = out[2];
  const std::uint8_t *a = four + levels.from[0], *b = four + levels.from[1], *c = four + levels.from[2];
  for (int x = 0; x < width; ++x) {
    first[x] = levels.of[0][a[4 * x]];
    second[x] = levels.of[1][b[4 * x]];
    third[x] = levels.of[2][c[4 * x]];
  }
}

// The grey levels nearest to the mean, red first.
std::uint32_t make_fill(const PreprocessSpec& spec) {
  std::uint8_t fill[4] = {0, 0, 0, 0};
  for (int c = 0; c < 3; ++c) {
    const double level = std::clamp(spec.mean[static_cast<std::size_t>(spec.bgr ? 2 - c : c)] * 255, 0.0, 255.0);
    fill[c] = static_cast<std::uint8_t>(std::floor(level + 0.5));
  }
  std::uint32_t pixel;
  std::memcpy(&pixel, fill, 4);
  return pixel;
}

struct Source {
  const Picture* picture;
  const Colours* colours;
};

void read_picture(const void* context, int y, std::uint8_t* out) {
  const Source& source = *static_cast<const Source*>(context);
  expand_row(*source.picture, *source.colours, y, out);
}

// Rows of four bytes a pixel that lie behind each other.
struct Buffer {
  std::uint8_t* data;
  int width;
};

void read_buffer(const void* context, int y, std::uint8_t* out) {
  const Buffer& buffer = *static_cast<const Buffer*>(context);
  const auto row = static_cast<std::size_t>(buffer.width) * 4;
  std::memcpy(out, buffer.data + static_cast<std::size_t>(y) * row, row);
}

void write_buffer(void* context, int y, const std::uint8_t* four) {
  const Buffer& buffer = *static_cast<const Buffer*>(context);
  const auto row = static_cast<std::size_t>(buffer.width) * 4;
  std::memcpy(buffer.data + static_cast<std::size_t>(y) * row, four, row);
}

void grow(Bytes& bytes, std::size_t size) {
  if (bytes.size() < size) bytes.resize(size);
}

// Parts of about 16 rows at least, a few for each thread.
int parts_of(int rows, const Threads& threads) { return std::clamp(rows / 16, 1, threads.count() * 4); }

}  // namespace

struct Preprocess::State {
  PreprocessSpec spec;
  Size imgsz;
  Threads* threads;
  Levels levels;
  std::uint32_t fill;
  Yuv yuv = Yuv::none;  // of the colours
  Colours colours{};
  Resizer first, second;
  Bytes between;  // two resizes
  Bytes rows;     // where nothing is resized
  Bytes whole;    // the network's picture before it becomes NV12, or the one that windows are cut from
  Size windows;

  Placement run(const Picture& picture, const RowSink& sink);
  void copy_rows(const RowSource& from, const Placement& placed, const RowSink& sink);
};

// Nothing is resized: rows of the picture from (top, left).
void Preprocess::State::copy_rows(const RowSource& from, const Placement& placed, const RowSink& sink) {
  const int height = placed.region.height, parts = parts_of(height, *threads);
  const std::size_t row = static_cast<std::size_t>(from.size.width) * 4;
  grow(rows, row * static_cast<std::size_t>(parts));
  threads->run(parts, [&](int part) {
    std::uint8_t* own = rows.data() + static_cast<std::size_t>(part) * row;
    const auto edge = [&](int i) { return static_cast<int>(static_cast<std::int64_t>(height) * i / parts); };
    for (int y = edge(part); y < edge(part + 1); ++y) {
      from.row(from.context, y + static_cast<int>(placed.top), own);
      sink.row(sink.context, y, own + placed.left * 4);
    }
  });
}

Placement Preprocess::State::run(const Picture& picture, const RowSink& sink) {
  const Size size{picture.height, picture.width};
  Placement placed = place(size, spec, imgsz);
  if (picture.pixels == Pixels::nv12 && picture.yuv != yuv) {
    colours = make_colours(picture.yuv);
    yuv = picture.yuv;
  }
  const Source source{&picture, &colours};
  RowSource from{size, read_picture, &source};
  const auto same = [&](int i) {
    return placed.sizes[i].height == from.size.height && placed.sizes[i].width == from.size.width;
  };
  int next = 0;
  Buffer buffer{};
  if (placed.count == 2 && !same(0) &&
      (placed.sizes[0].height != placed.sizes[1].height || placed.sizes[0].width != placed.sizes[1].width)) {
    const Size fitted{static_cast<int>(placed.sizes[0].height), static_cast<int>(placed.sizes[0].width)};
    grow(between, static_cast<std::size_t>(fitted.height) * static_cast<std::size_t>(fitted.width) * 4);
    buffer = Buffer{between.data(), fitted.width};
    first.resize_rows(from, spec.filter, Target{fitted.height, fitted.width, Region{0, 0, fitted.height, fitted.width}},
                      RowSink{write_buffer, &buffer}, *threads);
    from = RowSource{fitted, read_buffer, &buffer};
  }
  next = placed.count - 1;
  if (same(next)) {
    copy_rows(from, placed, sink);
    return placed;
  }
  if (placed.top > kMostSide * std::int64_t{4096} || placed.left > kMostSide * std::int64_t{4096}) {
    throw Error(kBadInput, "picture of " + std::to_string(size.height) + "x" + std::to_string(size.width) +
                               ": its sides differ too much");
  }
  const Region part{static_cast<int>(placed.top), static_cast<int>(placed.left), placed.region.height,
                    placed.region.width};
  second.resize_rows(from, spec.filter, Target{placed.sizes[next].height, placed.sizes[next].width, part}, sink,
                     *threads);
  return placed;
}

Preprocess::Preprocess(const PreprocessSpec& spec, Size imgsz, Threads& threads) : state_(std::make_unique<State>()) {
  check_spec(spec, imgsz);
  state_->spec = spec;
  state_->imgsz = imgsz;
  state_->threads = &threads;
  state_->levels = make_levels(spec);
  state_->fill = make_fill(spec);
}

Preprocess::~Preprocess() = default;
Preprocess::Preprocess(Preprocess&&) noexcept = default;
Preprocess& Preprocess::operator=(Preprocess&&) noexcept = default;

Region Preprocess::region(int height, int width) const {
  return valid_region(Size{height, width}, state_->spec, state_->imgsz);
}

namespace {

struct Planes {
  const Levels* levels;
  float* data;
  Size size;
  Region region;
};

void write_planes(void* context, int y, const std::uint8_t* four) {
  const Planes& planes = *static_cast<const Planes*>(context);
  const auto plane = static_cast<std::ptrdiff_t>(planes.size.height) * planes.size.width;
  float* first =
      planes.data + static_cast<std::ptrdiff_t>(planes.region.top + y) * planes.size.width + planes.region.left;
  float* const out[3] = {first, first + plane, first + 2 * plane};
  normalise_row(four, planes.region.width, *planes.levels, out);
}

void zero_around(const Planes& planes) {
  const Region& region = planes.region;
  const int height = planes.size.height, width = planes.size.width, right = region.left + region.width;
  for (int c = 0; c < 3; ++c) {
    for (int y = 0; y < height; ++y) {
      float* row = planes.data + (static_cast<std::ptrdiff_t>(c) * height + y) * width;
      const bool inside = y >= region.top && y < region.top + region.height;
      std::fill(row, row + (inside ? region.left : width), 0.0f);
      if (inside) std::fill(row + right, row + width, 0.0f);
    }
  }
}

struct Packed {
  std::uint8_t* data;
  std::ptrdiff_t stride;
  Pixels layout;
  Region region;
};

void write_packed(void* context, int y, const std::uint8_t* four) {
  const Packed& packed = *static_cast<const Packed*>(context);
  std::uint8_t* row = packed.data + (packed.region.top + y) * packed.stride;
  pack_row(four, packed.region.width, packed.layout, row + packed.region.left * channels(packed.layout));
}

// One colour for all that lies beside the region.
void fill_around(const Packed& packed, Size size, std::uint32_t fill) {
  std::uint8_t four[4], pixel[4];
  std::memcpy(four, &fill, 4);
  pack_row(four, 1, packed.layout, pixel);
  const int each = channels(packed.layout);
  const Region& region = packed.region;
  for (int y = 0; y < size.height; ++y) {
    const bool inside = y >= region.top && y < region.top + region.height;
    std::uint8_t* row = packed.data + y * packed.stride;
    for (int x = 0; x < size.width; ++x) {
      if (inside && x == region.left) x += region.width;
      if (x < size.width)
        std::memcpy(row + static_cast<std::ptrdiff_t>(x) * each, pixel, static_cast<std::size_t>(each));
    }
  }
}

// Where pixels are to be written: what check_picture says of reading them holds here, too.
void check_target(Pixels layout, Yuv yuv, Size size, std::uint8_t* const planes[2], const std::ptrdiff_t strides[2]) {
  check_picture(Picture{layout, yuv, size.height, size.width, {planes[0], planes[1]}, {strides[0], strides[1]}});
}

void write_nv12(const Buffer& buffer, int height, const Colours& colours, std::uint8_t* const planes[2],
                const std::ptrdiff_t strides[2], Threads& threads) {
  const std::size_t row = static_cast<std::size_t>(buffer.width) * 4;
  const int pairs = height / 2, parts = parts_of(pairs, threads);
  threads.run(parts, [&](int part) {
    for (int i = pairs * part / parts; i < pairs * (part + 1) / parts; ++i) {
      const std::uint8_t* upper = buffer.data + static_cast<std::size_t>(2 * i) * row;
      std::uint8_t* luma = planes[0] + 2 * i * strides[0];
      nv12_rows(upper, upper + row, buffer.width, colours, luma, luma + strides[0], planes[1] + i * strides[1]);
    }
  });
}

}  // namespace

void Preprocess::tensor(const Picture& picture, float* nchw) {
  check_picture(picture);
  if (!nchw) throw Error(kBadInput, "the network's input is null; give where 3 planes of floats lie");
  State& state = *state_;
  Planes planes{&state.levels, nchw, state.imgsz, region(picture.height, picture.width)};
  state.run(picture, RowSink{write_planes, &planes});
  zero_around(planes);
}

void Preprocess::pixels(const Picture& picture, Pixels layout, Yuv yuv, std::uint8_t* const planes[2],
                        const std::ptrdiff_t strides[2]) {
  check_picture(picture);
  State& state = *state_;
  const Size size = state.imgsz;
  check_target(layout, yuv, size, planes, strides);
  Packed packed{planes[0], strides[0], layout, region(picture.height, picture.width)};
  if (layout == Pixels::nv12) {
    grow(state.whole, static_cast<std::size_t>(size.height) * static_cast<std::size_t>(size.width) * 4);
    packed.data = state.whole.data();
    packed.stride = static_cast<std::ptrdiff_t>(size.width) * 4;
    packed.layout = Pixels::rgba;
  }
  state.run(picture, RowSink{write_packed, &packed});
  fill_around(packed, size, state.fill);
  if (layout == Pixels::nv12) {
    write_nv12(Buffer{packed.data, size.width}, size.height, make_colours(yuv), planes, strides, *state.threads);
  }
}

Size Preprocess::prepare_windows(const Picture& picture) {
  check_picture(picture);
  State& state = *state_;
  if (state.spec.resize != Resize::slide)
    throw Error(kUsage, "windows are of resize=slide; this preprocessing has none");
  state.windows = Size{};
  const Size size = sliding_size(Size{picture.height, picture.width}, state.spec, state.imgsz);
  grow(state.whole, static_cast<std::size_t>(size.height) * static_cast<std::size_t>(size.width) * 4);
  Buffer buffer{state.whole.data(), size.width};
  state.run(picture, RowSink{write_buffer, &buffer});
  state.windows = size;
  return size;
}

void Preprocess::window(int top, int left, float* nchw) const {
  const State& state = *state_;
  const Size size = state.windows, imgsz = state.imgsz;
  if (top < 0 || left < 0 || top > size.height - imgsz.height || left > size.width - imgsz.width || !nchw) {
    throw Error(kUsage, "window at " + std::to_string(top) + ", " + std::to_string(left) + ": a picture of " +
                            std::to_string(size.height) + "x" + std::to_string(size.width) + " has none there");
  }
  Planes planes{&state.levels, nchw, imgsz, Region{0, 0, imgsz.height, imgsz.width}};
  const int parts = parts_of(imgsz.height, *state.threads);
  state.threads->run(parts, [&](int part) {
    for (int y = imgsz.height * part / parts; y < imgsz.height * (part + 1) / parts; ++y) {
      const std::size_t pixel = static_cast<std::size_t>(top + y) * static_cast<std::size_t>(size.width);
      write_planes(&planes, y, state.whole.data() + (pixel + static_cast<std::size_t>(left)) * 4);
    }
  });
}

namespace {

constexpr int kPiece = 1024;  // pixels of a row that are converted at a time, on the stack

Picture piece_of(const Picture& picture, int x, int width) {
  Picture piece = picture;
  piece.width = width;
  piece.planes[0] += static_cast<std::ptrdiff_t>(x) * channels(picture.pixels);
  if (picture.pixels == Pixels::nv12) piece.planes[1] += x;
  return piece;
}

void copy_plane(const std::uint8_t* from, std::ptrdiff_t from_stride, std::uint8_t* to, std::ptrdiff_t to_stride,
                std::size_t row, int height) {
  for (int y = 0; y < height; ++y) std::memcpy(to + y * to_stride, from + y * from_stride, row);
}

}  // namespace

void convert_pixels(const Picture& picture, Pixels layout, Yuv yuv, std::uint8_t* const planes[2],
                    const std::ptrdiff_t strides[2], Threads& threads) {
  check_picture(picture);
  check_target(layout, yuv, Size{picture.height, picture.width}, planes, strides);
  const bool nv12 = layout == Pixels::nv12;
  const int height = picture.height, width = picture.width;
  if (picture.pixels == layout && (!nv12 || picture.yuv == yuv)) {
    const std::size_t row = static_cast<std::size_t>(width) * static_cast<std::size_t>(channels(layout));
    copy_plane(picture.planes[0], picture.strides[0], planes[0], strides[0], row, height);
    if (nv12) copy_plane(picture.planes[1], picture.strides[1], planes[1], strides[1], row, height / 2);
    return;
  }
  const Colours from = make_colours(picture.yuv), to = make_colours(yuv);
  const int rows = nv12 ? height / 2 : height, parts = parts_of(rows, threads);
  threads.run(parts, [&](int part) {
    alignas(8) std::uint8_t four[2][kPiece * 4];
    for (int y = static_cast<int>(std::int64_t{rows} * part / parts); y < std::int64_t{rows} * (part + 1) / parts;
         ++y) {
      for (int x = 0; x < width; x += kPiece) {
        const Picture piece = piece_of(picture, x, std::min(kPiece, width - x));
        if (nv12) {
          expand_row(piece, from, 2 * y, four[0]);
          expand_row(piece, from, 2 * y + 1, four[1]);
          std::uint8_t* luma = planes[0] + 2 * y * strides[0] + x;
          nv12_rows(four[0], four[1], piece.width, to, luma, luma + strides[0], planes[1] + y * strides[1] + x);
        } else {
          expand_row(piece, from, y, four[0]);
          pack_row(four[0], piece.width, layout, planes[0] + y * strides[0] + x * channels(layout));
        }
      }
    }
  });
}

}  // namespace hiresvit
