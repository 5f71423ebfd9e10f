// From what a network gives to labels at the picture's size: hiresvit/runtime/labels.py; and a classifier's classes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "spec.hpp"
#include "threads.hpp"

namespace hiresvit {

// (classes, height, width) of float32, or float16 where `half`. Strides count elements; a row's lie side by side.
struct Logits {
  const void* data = nullptr;
  bool half = false;
  int classes = 0;
  int height = 0;
  int width = 0;
  std::ptrdiff_t class_stride = 0;  // 0: rows and classes lie behind each other
  std::ptrdiff_t row_stride = 0;
};

// Where labels go: rows `stride` elements apart. `confidence` may be null.
struct LabelsOut {
  LabelType type = LabelType::u8;
  void* labels = nullptr;
  std::ptrdiff_t stride = 0;
  std::uint8_t* confidence = nullptr;
  std::ptrdiff_t confidence_stride = 0;
};

// Labels that lie somewhere, (height, width) of a type.
struct LabelsIn {
  LabelType type = LabelType::u8;
  const void* labels = nullptr;
  std::ptrdiff_t stride = 0;
  Size size;
};

// Keeps its buffers, which grow with what is asked. Not for two threads at once.
class Postprocess {
 public:
  // `threads` must live as long.
  Postprocess(const PreprocessSpec& spec, Size imgsz, Threads& threads);
  ~Postprocess();
  Postprocess(Postprocess&&) noexcept;
  Postprocess& operator=(Postprocess&&) noexcept;

  // Labels of a picture of a size from logits that lie over the whole input: of the part that shows the picture resized
  // bilinearly, the best; of equals the lowest. Throws Error (bad input) for sizes that do not fit and more than 256
  // classes into u8.
  void labels(const Logits& logits, Size picture, const LabelsOut& out);

  // The same from labels of the network's size: the nearest.
  void nearest(const LabelsIn& labels, Size picture, const LabelsOut& out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The k best classes, best first, of equals the lowest index, and their probabilities: softmax in double.
// `scratch` holds `count` doubles.
void top_classes(const void* logits, bool half, int count, int k, double* scratch, std::int32_t* classes,
                 double* probabilities);

}  // namespace hiresvit
