#include "boxes.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "error.hpp"
#include "geometry.hpp"
#include "half.hpp"

namespace hiresvit {

namespace {

float value_at(const void* data, bool half, std::size_t index) {
  const float value =
      half ? from_half(static_cast<const std::uint16_t*>(data)[index]) : static_cast<const float*>(data)[index];
  if (!std::isfinite(value)) throw Error(kFailed, "the network gave boxes that are NaN or Inf; compare with fp32");
  return value;
}

double overlap(const double* a, const double* b) {
  const double across = std::min(a[2], b[2]) - std::max(a[0], b[0]), down = std::min(a[3], b[3]) - std::max(a[1], b[1]);
  if (across <= 0 || down <= 0) return 0;
  const auto area = [](const double* box) { return (box[2] - box[0]) * (box[3] - box[1]); };
  const double both = across * down;
  return both / (area(a) + area(b) - both);
}

}  // namespace

Size map_size(Size imgsz, int stride) {
  return {(imgsz.height + stride - 1) / stride, (imgsz.width + stride - 1) / stride};
}

Boxes::Boxes(const AnchorSpec& anchors, int classes, const PreprocessSpec& preprocess, Size imgsz)
    : anchors_(anchors),
      classes_(classes),
      preprocess_(preprocess),
      imgsz_(imgsz),
      least_(std::log(anchors.score_threshold / (1 - anchors.score_threshold))) {
  std::size_t most = 0, all = 0;
  for (const int stride : anchors_.strides) {
    const Size map = map_size(imgsz_, stride);
    const std::size_t scores = static_cast<std::size_t>(anchors_.per_cell()) * static_cast<std::size_t>(classes_) *
                               static_cast<std::size_t>(map.height) * static_cast<std::size_t>(map.width);
    const std::size_t kept = std::min(static_cast<std::size_t>(anchors_.per_level), scores);
    most = std::max(most, kept), all += kept;
  }
  level_.reserve(most + 1), candidates_.reserve(all);
  kept_.reserve(static_cast<std::size_t>(anchors_.max_boxes));
}

// Of equals the one that comes first: level by level, row by row, anchor by anchor, class by class.
bool Boxes::before(const Candidate& a, const Candidate& b) {
  if (a.logit != b.logit) return a.logit > b.logit;
  return a.level != b.level ? a.level < b.level : a.place < b.place;
}

// The best pairs of anchor and class of a level, into candidates_.
void Boxes::collect(const BoxMaps& maps, std::uint32_t level) {
  const Size map = map_size(imgsz_, anchors_.strides[level]);
  const std::size_t cells = static_cast<std::size_t>(map.height) * static_cast<std::size_t>(map.width);
  const std::size_t channels = static_cast<std::size_t>(anchors_.per_cell()) * static_cast<std::size_t>(classes_);
  level_.clear();
  for (std::size_t channel = 0; channel < channels; ++channel) {
    for (std::size_t cell = 0; cell < cells; ++cell) {
      const float logit = value_at(maps.logits, maps.logits_half, channel * cells + cell);
      if (!(static_cast<double>(logit) > least_)) continue;
      const Candidate one{logit, level, cell * channels + channel, {}};
      if (level_.size() == static_cast<std::size_t>(anchors_.per_level)) {
        if (!before(one, level_.front())) continue;  // the heap's front is the last
        std::pop_heap(level_.begin(), level_.end(), before);
        level_.pop_back();
      }
      level_.push_back(one);
      std::push_heap(level_.begin(), level_.end(), before);
    }
  }
  candidates_.insert(candidates_.end(), level_.begin(), level_.end());
}

// From an anchor and its deltas to corners in the input.
void Boxes::decode(const BoxMaps& maps, Candidate& one) const {
  const int stride = anchors_.strides[one.level];
  const Size map = map_size(imgsz_, stride);
  const std::size_t cells = static_cast<std::size_t>(map.height) * static_cast<std::size_t>(map.width);
  const std::size_t columns = static_cast<std::size_t>(map.width), scales = anchors_.scales.size();
  const std::size_t per_cell = static_cast<std::size_t>(anchors_.per_cell());
  const std::size_t pair = one.place / static_cast<std::size_t>(classes_);
  const std::size_t anchor = pair % per_cell, cell = pair / per_cell;
  const double size = anchors_.base * stride * anchors_.scales[anchor % scales];
  const double root = std::sqrt(anchors_.ratios[anchor / scales]);
  const double width = size / root, height = size * root;
  double delta[4];
  for (std::size_t part = 0; part < 4; ++part) {
    const float raw = value_at(maps.deltas, maps.deltas_half, (anchor * 4 + part) * cells + cell);
    delta[part] = static_cast<double>(raw) * anchors_.stds[part] + anchors_.means[part];
  }
  const double most = std::abs(std::log(anchors_.size_clamp));
  const double x = static_cast<double>(cell % columns) * stride + delta[0] * width;
  const double y = static_cast<double>(cell / columns) * stride + delta[1] * height;
  const double across = width * std::exp(std::clamp(delta[2], -most, most)) / 2;
  const double down = height * std::exp(std::clamp(delta[3], -most, most)) / 2;
  one.box[0] = x - across, one.box[1] = y - down, one.box[2] = x + across, one.box[3] = y + down;
}

// Cut at the picture's borders in the input; whether anything is left.
bool Boxes::cut(Candidate& one, const Region& region) {
  const double low[2] = {static_cast<double>(region.left), static_cast<double>(region.top)};
  const double high[2] = {low[0] + region.width, low[1] + region.height};
  for (int side = 0; side < 4; ++side) one.box[side] = std::clamp(one.box[side], low[side % 2], high[side % 2]);
  return one.box[2] > one.box[0] && one.box[3] > one.box[1];
}

int Boxes::find(const std::vector<BoxMaps>& levels, Size picture, int most, Detection* out) {
  const Placement placed = place(picture, preprocess_, imgsz_);
  candidates_.clear(), kept_.clear();
  for (std::uint32_t level = 0; level < levels.size(); ++level) collect(levels[level], level);
  std::sort(candidates_.begin(), candidates_.end(), before);
  const std::size_t wanted = static_cast<std::size_t>(std::min(most, anchors_.max_boxes));
  for (Candidate& one : candidates_) {
    if (kept_.size() == wanted) break;
    decode(levels[one.level], one);
    if (!cut(one, placed.region)) continue;
    const auto hides = [&](const Candidate& better) {
      return label_of(better) == label_of(one) && overlap(better.box, one.box) > anchors_.iou_threshold;
    };
    if (std::none_of(kept_.begin(), kept_.end(), hides)) kept_.push_back(one);
  }
  const auto& scaled = placed.sizes[placed.count - 1];
  const double across = static_cast<double>(picture.width) / static_cast<double>(scaled.width);
  const double down = static_cast<double>(picture.height) / static_cast<double>(scaled.height);
  const double left = static_cast<double>(placed.left - placed.region.left);
  const double top = static_cast<double>(placed.top - placed.region.top);
  for (std::size_t index = 0; index < kept_.size(); ++index) {
    const Candidate& one = kept_[index];
    for (int side = 0; side < 4; ++side) {
      const double in_picture = (one.box[side] + (side % 2 ? top : left)) * (side % 2 ? down : across);
      out[index].box[side] = static_cast<float>(in_picture);
    }
    out[index].score = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(one.logit))));
    out[index].label = label_of(one);
  }
  return static_cast<int>(kept_.size());
}

}  // namespace hiresvit
