// The numerics behind plain C functions, for tests/cpp: held there against Pillow, numpy and the Python definitions.
#include <cstdio>
#include <string>

#include "postprocess.hpp"
#include "preprocess.hpp"
#include "resize.hpp"

using namespace hiresvit;

namespace {

thread_local std::string last;

template <class Work>
int guarded(const Work& work) {
  try {
    work();
    return 0;
  } catch (const Error& error) {
    last = error.what();
    return error.code;
  }
}

Threads& threads() {
  static Threads pool(3);
  return pool;
}

}  // namespace

extern "C" {

struct CSpec {
  int resize, filter, rounds, divisor, bgr, short_side;
  double crop_pct, mean[3], std[3];
};

struct CPicture {
  int pixels, yuv, height, width;
  const std::uint8_t* planes[2];
  std::ptrdiff_t strides[2];
};

}  // extern "C"

namespace {

PreprocessSpec spec_of(const CSpec& c) {
  PreprocessSpec spec;
  spec.resize = static_cast<Resize>(c.resize);
  spec.filter = static_cast<Filter>(c.filter);
  spec.rounds = c.rounds;
  spec.divisor = c.divisor;
  spec.bgr = c.bgr;
  if (c.short_side) spec.short_side = c.short_side;
  spec.crop_pct = c.crop_pct;
  for (std::size_t i = 0; i < 3; ++i) spec.mean[i] = c.mean[i], spec.std[i] = c.std[i];
  return spec;
}

Picture picture_of(const CPicture& c) {
  return Picture{static_cast<Pixels>(c.pixels), static_cast<Yuv>(c.yuv),     c.height, c.width,
                 {c.planes[0], c.planes[1]},    {c.strides[0], c.strides[1]}};
}

}  // namespace

extern "C" {

const char* t_error() { return last.c_str(); }

int t_resize(const std::uint8_t* from, std::ptrdiff_t stride, int height, int width, int channels, int filter,
             int to_height, int to_width, std::uint8_t* out, std::ptrdiff_t out_stride) {
  static Resizer resizer;
  return guarded([&] {
    resizer.resize(View{from, stride, Size{height, width}}, channels, static_cast<Filter>(filter),
                   Size{to_height, to_width}, out, out_stride, threads());
  });
}

int t_tensor(const CSpec* spec, int height, int width, const CPicture* picture, float* out) {
  return guarded([&] { Preprocess(spec_of(*spec), Size{height, width}, threads()).tensor(picture_of(*picture), out); });
}

int t_pixels(const CSpec* spec, int height, int width, const CPicture* picture, int layout, int yuv,
             std::uint8_t* const* planes, const std::ptrdiff_t* strides) {
  return guarded([&] {
    Preprocess(spec_of(*spec), Size{height, width}, threads())
        .pixels(picture_of(*picture), static_cast<Pixels>(layout), static_cast<Yuv>(yuv), planes, strides);
  });
}

int t_convert(const CPicture* picture, int layout, int yuv, std::uint8_t* const* planes,
              const std::ptrdiff_t* strides) {
  return guarded([&] {
    convert_pixels(picture_of(*picture), static_cast<Pixels>(layout), static_cast<Yuv>(yuv), planes, strides,
                   threads());
  });
}

int t_region(const CSpec* spec, int height, int width, int picture_height, int picture_width, int* out) {
  return guarded([&] {
    const Region region = valid_region(Size{picture_height, picture_width}, spec_of(*spec), Size{height, width});
    out[0] = region.top, out[1] = region.left, out[2] = region.height, out[3] = region.width;
  });
}

int t_window(const CSpec* spec, int height, int width, const CPicture* picture, int top, int left, float* out,
             int* size) {
  return guarded([&] {
    Preprocess preprocess(spec_of(*spec), Size{height, width}, threads());
    const Size whole = preprocess.prepare_windows(picture_of(*picture));
    size[0] = whole.height, size[1] = whole.width;
    preprocess.window(top, left, out);
  });
}

}  // extern "C"

extern "C" {

int t_labels(const CSpec* spec, int height, int width, const void* logits, int half, int classes, int rows, int columns,
             std::ptrdiff_t class_stride, std::ptrdiff_t row_stride, int picture_height, int picture_width, int type,
             void* labels, std::ptrdiff_t stride, std::uint8_t* confidence, std::ptrdiff_t confidence_stride) {
  return guarded([&] {
    Postprocess(spec_of(*spec), Size{height, width}, threads())
        .labels(Logits{logits, half != 0, classes, rows, columns, class_stride, row_stride},
                Size{picture_height, picture_width},
                LabelsOut{static_cast<LabelType>(type), labels, stride, confidence, confidence_stride});
  });
}

int t_nearest(const CSpec* spec, int height, int width, int from_type, const void* from, std::ptrdiff_t from_stride,
              int picture_height, int picture_width, int type, void* labels, std::ptrdiff_t stride) {
  return guarded([&] {
    Postprocess(spec_of(*spec), Size{height, width}, threads())
        .nearest(LabelsIn{static_cast<LabelType>(from_type), from, from_stride, Size{height, width}},
                 Size{picture_height, picture_width},
                 LabelsOut{static_cast<LabelType>(type), labels, stride, nullptr, 0});
  });
}

int t_top(const void* logits, int half, int count, int k, double* scratch, std::int32_t* classes,
          double* probabilities) {
  return guarded([&] { top_classes(logits, half != 0, count, k, scratch, classes, probabilities); });
}

}  // extern "C"
