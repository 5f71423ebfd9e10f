// What is said about a model: the parts of hiresvit/spec.py that a frame needs.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "picture.hpp"

namespace hiresvit {

enum class Task { classify, segment, features, masks, detect };
enum class Resize { stretch, crop, keep, letterbox, slide };
enum class Filter { bilinear, bicubic, lanczos, opencv };  // Pillow's three, and OpenCV's INTER_LINEAR
enum class LabelType { u8, i32, i64 };
enum class ContractName { tensor, image, camera };

struct Size {
  int height = 0;
  int width = 0;
};

inline bool operator==(const Size& a, const Size& b) { return a.height == b.height && a.width == b.width; }
inline bool operator!=(const Size& a, const Size& b) { return !(a == b); }

// A part of the input, in its pixels.
struct Region {
  int top = 0;
  int left = 0;
  int height = 0;
  int width = 0;
};

struct PreprocessSpec {
  Resize resize = Resize::stretch;
  Filter filter = Filter::bilinear;
  double crop_pct = 0.875;
  std::array<double, 3> mean{0.485, 0.456, 0.406};  // of the channels in their order
  std::array<double, 3> std{0.229, 0.224, 0.225};
  bool rounds = false;  // rounding "round" and not "floor"
  int divisor = 1;
  bool bgr = false;  // the network's channels, whatever the picture's are
  std::optional<Size> stride;
  std::optional<int> short_side;
};

struct ContractSpec {
  ContractName name = ContractName::tensor;
  Pixels pixels = Pixels::rgb;
  std::optional<Size> size;  // of the pixels; none for a tensor
  Yuv yuv = Yuv::none;
  std::optional<LabelType> label_type;
  bool confidence = false;
  std::optional<int> top_k;
};

// How a detector's raw outputs become boxes: AnchorSpec of hiresvit/spec.py, which says what each of them means.
struct AnchorSpec {
  std::vector<int> strides;
  std::vector<double> scales, ratios;
  double base = 0;
  std::array<double, 4> means{}, stds{};
  double size_clamp = 0;
  double score_threshold = 0;
  int per_level = 0;
  double iou_threshold = 0;
  int max_boxes = 0;

  int per_cell() const { return static_cast<int>(scales.size() * ratios.size()); }
};

struct ModelSpec {
  std::string name;
  std::string family;
  Task task = Task::segment;
  Size imgsz;
  int num_classes = 0;
  PreprocessSpec preprocess;
  std::optional<AnchorSpec> anchors;  // of detect, and of nothing else
};

// dtype is numpy's name; a dynamic axis is -1.
struct TensorSpec {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
};

}  // namespace hiresvit
