// hiresvit in C++17: header-only, over the C ABI of hiresvit.h, with exceptions and nothing to free.
//
//   hiresvit::Engine engine("hrvit_b1-segment-512x512");
//   std::vector<std::uint8_t> labels(height * width);
//   engine.segment(hiresvit::rgb(pixels, height, width), labels.data());
#ifndef HIRESVIT_HPP
#define HIRESVIT_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "hiresvit/hiresvit.h"

namespace hiresvit {
inline namespace api {

// What a call of the C ABI said: `code` is HIRESVIT_USAGE and its like, what() one line.
class Error : public std::runtime_error {
 public:
  Error(int code, const char* text) : std::runtime_error(text), code_(code) {}
  int code() const noexcept { return code_; }

 private:
  int code_;
};

inline void check(int status) {
  if (status != HIRESVIT_OK) throw Error(status, hiresvit_last_error());
}

// How a bundle is opened: see hiresvit_options, whose defaults these are.
struct Options {
  std::string graph;
  std::string backend;
  std::string library;
  int threads = 0;
  bool golden = true;
  bool cuda_graph = false;
  int device = 0;
  void* stream = nullptr;
  bool host_code = false;
  std::string context;
  std::string provider;
  int soc_model = 0;
};

// A picture in the caller's memory; a stride of 0 means that its rows lie behind each other.
using Picture = hiresvit_picture;

inline Picture packed(int pixels, const std::uint8_t* data, int height, int width, std::ptrdiff_t stride = 0) {
  Picture picture{};
  picture.struct_size = sizeof picture;
  picture.pixels = pixels, picture.height = height, picture.width = width;
  picture.planes[0] = data, picture.strides[0] = stride;
  return picture;
}

inline Picture rgb(const std::uint8_t* data, int height, int width, std::ptrdiff_t stride = 0) {
  return packed(HIRESVIT_RGB, data, height, width, stride);
}

inline Picture bgr(const std::uint8_t* data, int height, int width, std::ptrdiff_t stride = 0) {
  return packed(HIRESVIT_BGR, data, height, width, stride);
}

inline Picture nv12(const std::uint8_t* luma, const std::uint8_t* chroma, int height, int width, int yuv,
                    std::ptrdiff_t luma_stride = 0, std::ptrdiff_t chroma_stride = 0) {
  Picture picture = packed(HIRESVIT_NV12, luma, height, width, luma_stride);
  picture.yuv = yuv, picture.planes[1] = chroma, picture.strides[1] = chroma_stride;
  return picture;
}

using Answer = hiresvit_answer;

// Labels of a picture of a size into the caller's memory, and where `confidence` is given that, too.
template <class Label>
Answer label_map(Label* labels, int height, int width, std::uint8_t* confidence = nullptr) {
  static_assert(std::is_same_v<Label, std::uint8_t> || std::is_same_v<Label, std::int32_t> ||
                    std::is_same_v<Label, std::int64_t>,
                "labels are uint8, int32 or int64");
  Answer answer{};
  answer.struct_size = sizeof answer;
  answer.height = height, answer.width = width, answer.labels = labels, answer.confidence = confidence;
  answer.label_type = sizeof(Label) == 1 ? HIRESVIT_U8 : sizeof(Label) == 4 ? HIRESVIT_I32 : HIRESVIT_I64;
  return answer;
}

struct Class {
  int index;
  float probability;
};

// box: left, top, right, bottom in pixels of the picture; score; label.
using Detection = hiresvit_detection;

// A bundle that is loaded. It serves one thread at a time; it can be moved and not copied. Every function throws Error.
class Engine {
 public:
  explicit Engine(const std::string& bundle, const Options& options = {}) {
    hiresvit_options own{};
    own.struct_size = sizeof own;
    const auto text = [](const std::string& value) { return value.empty() ? nullptr : value.c_str(); };
    own.graph = text(options.graph), own.backend = text(options.backend), own.library = text(options.library);
    own.threads = options.threads, own.skip_golden = options.golden ? 0 : 1;
    own.cuda_graph = options.cuda_graph ? 1 : 0, own.device = options.device, own.stream = options.stream;
    own.host_code = options.host_code ? 1 : 0;
    own.context = text(options.context), own.provider = text(options.provider), own.soc_model = options.soc_model;
    check(hiresvit_open(bundle.c_str(), &own, &engine_));
  }
  ~Engine() { hiresvit_close(&engine_); }
  Engine(Engine&& other) noexcept : engine_(std::exchange(other.engine_, nullptr)) {}
  Engine& operator=(Engine&& other) noexcept {
    std::swap(engine_, other.engine_);
    return *this;
  }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Frees all before the engine goes out of scope; every call after it throws Error.
  void close() noexcept { hiresvit_close(&engine_); }

  hiresvit_info info() const {
    hiresvit_info info{};
    info.struct_size = sizeof info;
    check(hiresvit_describe(engine_, &info));
    return info;
  }
  std::string class_name(int index) const {
    const char* name = nullptr;
    check(hiresvit_class(engine_, index, &name, nullptr));
    return name;
  }
  std::array<std::uint8_t, 3> class_colour(int index) const {
    std::array<std::uint8_t, 3> rgb{};
    check(hiresvit_class(engine_, index, nullptr, rgb.data()));
    return rgb;
  }

  // See hiresvit_submit, hiresvit_wait and hiresvit_run: up to two frames may be under way.
  void submit(const Picture& picture) { check(hiresvit_submit(engine_, &picture)); }
  void wait(Answer& answer) { check(hiresvit_wait(engine_, &answer)); }
  void run(const Picture& picture, Answer& answer) { check(hiresvit_run(engine_, &picture, &answer)); }
  int pending() const noexcept { return hiresvit_pending(engine_, nullptr, nullptr); }

  // A picture's labels, rows behind each other, of uint8, int32 or int64; and its confidence where that is given.
  template <class Label>
  void segment(const Picture& picture, Label* labels, std::uint8_t* confidence = nullptr) {
    Answer answer = label_map(labels, picture.height, picture.width, confidence);
    run(picture, answer);
  }

  // The k best classes of a picture, best first; fewer where the bundle has fewer.
  std::vector<Class> classify(const Picture& picture, int k = 5) {
    std::vector<std::int32_t> classes(static_cast<std::size_t>(k > 0 ? k : 0));
    std::vector<float> probabilities(classes.size());
    Answer answer{};
    answer.struct_size = sizeof answer;
    answer.k = k, answer.classes = classes.data(), answer.probabilities = probabilities.data();
    run(picture, answer);
    std::vector<Class> best;
    for (std::size_t place = 0; place < static_cast<std::size_t>(answer.k); ++place) {
      best.push_back({classes[place], probabilities[place]});
    }
    return best;
  }

  // A picture's boxes, best first: as many as the bundle's threshold leaves, or the `most` best of them.
  std::vector<Detection> detect(const Picture& picture, int most = 0) {
    std::vector<Detection> boxes(static_cast<std::size_t>(most > 0 ? most : info().most_boxes));
    Answer answer{};
    answer.struct_size = sizeof answer;
    answer.k = static_cast<int>(boxes.size()), answer.boxes = boxes.data();
    run(picture, answer);
    boxes.resize(static_cast<std::size_t>(answer.k));
    return boxes;
  }

  // A raw output of the frame that was answered last: valid until the next submit.
  hiresvit_tensor output(int index) const {
    hiresvit_tensor tensor{};
    tensor.struct_size = sizeof tensor;
    check(hiresvit_output(engine_, index, &tensor));
    return tensor;
  }
  hiresvit_times times() const {
    hiresvit_times times{};
    times.struct_size = sizeof times;
    check(hiresvit_last_times(engine_, &times));
    return times;
  }

 private:
  hiresvit_engine* engine_ = nullptr;
};

}  // namespace api
}  // namespace hiresvit

#endif
