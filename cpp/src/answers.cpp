// What an engine makes of its outputs: labels, best classes, boxes.
#include <algorithm>

#include "engine.hpp"
#include "error.hpp"
#include "half.hpp"

namespace hiresvit {
namespace {

LabelType label_type(Type type) {
  return type == Type::u8 ? LabelType::u8 : type == Type::i32 ? LabelType::i32 : LabelType::i64;
}

template <class From, class To>
void copy_rows(const LabelsIn& from, const LabelsOut& to) {
  for (int row = 0; row < from.size.height; ++row) {
    const From* const read = static_cast<const From*>(from.labels) + row * from.stride;
    std::transform(read, read + from.size.width, static_cast<To*>(to.labels) + row * to.stride,
                   [](From label) { return static_cast<To>(label); });
  }
}

template <class From>
void copy_rows_of(const LabelsIn& from, const LabelsOut& to) {
  switch (to.type) {
    case LabelType::u8: return copy_rows<From, std::uint8_t>(from, to);
    case LabelType::i32: return copy_rows<From, std::int32_t>(from, to);
    case LabelType::i64: return copy_rows<From, std::int64_t>(from, to);
  }
}

void copy_labels(const LabelsIn& from, const LabelsOut& to) {
  switch (from.type) {
    case LabelType::u8: return copy_rows_of<std::uint8_t>(from, to);
    case LabelType::i32: return copy_rows_of<std::int32_t>(from, to);
    case LabelType::i64: return copy_rows_of<std::int64_t>(from, to);
  }
}

}  // namespace

std::size_t Engine::index_of(const std::string& output) const {
  const std::vector<TensorInfo>& outputs = backend_->outputs();
  for (std::size_t index = 0; index < outputs.size(); ++index) {
    if (outputs[index].name == output) return index;
  }
  throw Error(kDamaged, manifest_.folder + ": the graph has no output " + output + "; export it again");
}

void Engine::answer_labels(const Answer& answer, int slot, Size size) {
  if (manifest_.contract.name == ContractName::tensor) {
    const std::size_t index = index_of("logits");
    const TensorInfo& info = backend_->outputs()[index];
    Logits logits;
    logits.data = backend_->output(slot, index);
    logits.half = info.type == Type::f16;
    logits.classes = static_cast<int>(info.shape[1]);
    logits.height = static_cast<int>(info.shape[2]), logits.width = static_cast<int>(info.shape[3]);
    postprocess_.labels(logits, size, answer.labels);
    return;
  }
  const std::size_t index = index_of("labels");
  const TensorInfo& info = backend_->outputs()[index];
  const Size of_map{static_cast<int>(info.shape[1]), static_cast<int>(info.shape[2])};
  const LabelsIn map{label_type(info.type), backend_->output(slot, index), of_map.width, of_map};
  LabelsOut out = answer.labels;
  out.confidence = nullptr;
  const bool camera = manifest_.contract.name == ContractName::camera;
  const auto enlarge = [&](const LabelsIn& from, const LabelsOut& to) {
    if (camera) {
      copy_labels(from, to);
    } else {
      postprocess_.nearest(from, size, to);
    }
  };
  enlarge(map, out);
  if (answer.labels.confidence == nullptr) return;
  const LabelsIn confidence{LabelType::u8, backend_->output(slot, index_of("confidence")),
                            of_map.width, of_map};
  enlarge(confidence, {LabelType::u8, answer.labels.confidence, answer.labels.confidence_stride, nullptr, 0});
}

void Engine::answer_classes(Answer& answer, int slot) {
  answer.k = std::min(answer.k, most_classes_);
  if (answer.k == 0) return;
  if (manifest_.contract.name != ContractName::tensor) {
    copy_classes(answer, slot);
    return;
  }
  const std::size_t index = index_of("logits");
  top_classes(backend_->output(slot, index), backend_->outputs()[index].type == Type::f16, manifest_.spec.num_classes,
              answer.k, scratch_.data(), classes_.data(), probabilities_.data());
  for (int place = 0; place < answer.k; ++place) {
    if (answer.classes != nullptr) answer.classes[place] = classes_[place];
    if (answer.probabilities != nullptr) answer.probabilities[place] = static_cast<float>(probabilities_[place]);
  }
}

void Engine::copy_classes(Answer& answer, int slot) const {
  const std::size_t index = index_of("classes");
  const void* const classes = backend_->output(slot, index);
  const std::size_t beside = index_of("probabilities");
  const void* const shares = backend_->output(slot, beside);
  const bool half = backend_->outputs()[beside].type == Type::f16;
  const Type type = backend_->outputs()[index].type;
  for (int place = 0; place < answer.k; ++place) {
    const std::int64_t found = type == Type::u8    ? static_cast<const std::uint8_t*>(classes)[place]
                               : type == Type::i32 ? static_cast<const std::int32_t*>(classes)[place]
                                                   : static_cast<const std::int64_t*>(classes)[place];
    if (answer.classes != nullptr) answer.classes[place] = static_cast<std::int32_t>(found);
    if (answer.probabilities == nullptr) continue;
    answer.probabilities[place] =
        half ? from_half(static_cast<const std::uint16_t*>(shares)[place]) : static_cast<const float*>(shares)[place];
  }
}

BoxMaps Engine::box_maps(int slot, int stride) const {
  const std::size_t logits = index_of("logits_" + std::to_string(stride));
  const std::size_t deltas = index_of("deltas_" + std::to_string(stride));
  const auto half = [&](std::size_t index) { return backend_->outputs()[index].type == Type::f16; };
  return {backend_->output(slot, logits), backend_->output(slot, deltas), half(logits), half(deltas)};
}

void Engine::answer_boxes(Answer& answer, int slot, Size size) {
  answer.k = std::min(answer.k, most_boxes());
  if (answer.k == 0 || answer.boxes == nullptr) {
    answer.k = 0;
    return;
  }
  box_maps_.clear();
  for (const int stride : manifest_.spec.anchors->strides) box_maps_.push_back(box_maps(slot, stride));
  answer.k = boxes_->find(box_maps_, size, answer.k, answer.boxes);
}

}  // namespace hiresvit
