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

// Intersection over union of boxes that have an area.
double overlap(const double* a, const double* b) {
  const auto area = [](const double* box) { return (box[2] - box[0]) * (box[3] - box[1]); };
  const double across = std::min(a[2], b[2]) - std::max(a[0], b[0]), down = std::min(a[3], b[3]) - std::max(a[1], b[1]);
  const double shared = std::max(across, 0.0) * std::max(down, 0.0);
  return shared / (area(a) + area(b) - shared);
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

// Of equals of one level the one that comes first: row by row, anchor by anchor, class by class.
bool Boxes::before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.place < b.place;
}

// Of equal scores, which those of different logits can be that are rounded to 1, the finer level comes first.
bool Boxes::before_in_all(const Candidate& a, const Candidate& b) {
  if (a.score != b.score) return a.score > b.score;
  return a.level != b.level ? a.level < b.level : before(a, b);
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
      const Candidate one{logit, level, cell * channels + channel, 1 / (1 + std::exp(-static_cast<double>(logit))), {}};
      if (level_.size() == static_cast<std::size_t>(anchors_.per_level)) {
        if (!before(one, level_.front())) continue;  // the heap's front is the last
        std::pop_heap(level_.begin(), level_.end(), before);
        level_.pop_back();
      }
      level_.push_back(one);
      std::push_heap(level_.begin(), level_.end(), before);
    }
  }
  const std::size_t deltas = static_cast<std::size_t>(anchors_.per_cell()) * 4 * cells;
  for (std::size_t index = 0; index < deltas; ++index) value_at(maps.deltas, maps.deltas_half, index);
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
  const double side = anchors_.base * stride * anchors_.scales[anchor % scales];
  const double root = std::sqrt(anchors_.ratios[anchor / scales]);
  const double most = std::abs(std::log(anchors_.size_clamp));
  const double halves[2] = {side / root / 2, side * root / 2};
  const double places[2] = {static_cast<double>(cell % columns), static_cast<double>(cell / columns)};
  const auto delta = [&](std::size_t part) {
    const float raw = value_at(maps.deltas, maps.deltas_half, (anchor * 4 + part) * cells + cell);
    return static_cast<double>(raw) * anchors_.stds[part] + anchors_.means[part];
  };
  for (std::size_t axis = 0; axis < 2; ++axis) {
    const double middle = places[axis] * stride, low = middle - halves[axis], high = middle + halves[axis];
    const double length = high - low, centre = (low + high) / 2 + length * delta(axis);
    const double half = length * std::exp(std::clamp(delta(2 + axis), -most, most)) / 2;
    one.box[axis] = centre - half, one.box[2 + axis] = centre + half;
  }
}

// Into the picture that a region of the input shows, cut at its borders; whether anything is left.
bool Boxes::show(Candidate& one, const Region& region, Size picture) {
  const int starts[2] = {region.left, region.top}, sides[2] = {region.width, region.height};
  const int wholes[2] = {picture.width, picture.height};
  for (int side = 0; side < 4; ++side) {
    const double length = sides[side % 2];
    one.box[side] = std::clamp(one.box[side] - starts[side % 2], 0.0, length) * (wholes[side % 2] / length);
  }
  return one.box[2] > one.box[0] && one.box[3] > one.box[1];
}

int Boxes::find(const std::vector<BoxMaps>& levels, Size picture, int most, Detection* out) {
  const Region region = valid_region(picture, preprocess_, imgsz_);
  candidates_.clear(), kept_.clear();
  for (std::uint32_t level = 0; level < levels.size(); ++level) collect(levels[level], level);
  std::sort(candidates_.begin(), candidates_.end(), before_in_all);
  const std::size_t wanted = static_cast<std::size_t>(std::min(most, anchors_.max_boxes));
  for (Candidate& one : candidates_) {
    if (kept_.size() == wanted) break;
    decode(levels[one.level], one);
    if (!show(one, region, picture)) continue;
    const auto hides = [&](const Candidate& better) {
      return label_of(better) == label_of(one) && overlap(better.box, one.box) > anchors_.iou_threshold;
    };
    if (std::none_of(kept_.begin(), kept_.end(), hides)) kept_.push_back(one);
  }
  std::transform(kept_.begin(), kept_.end(), out, [&](const Candidate& one) {
    Detection found{{}, static_cast<float>(one.score), label_of(one)};
    std::transform(one.box, one.box + 4, found.box, [](double side) { return static_cast<float>(side); });
    return found;
  });
  return static_cast<int>(kept_.size());
}

}  // namespace hiresvit
