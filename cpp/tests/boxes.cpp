// Boxes behind a plain C function, for tests/cpp: held there against hiresvit/runtime/boxes.py.
#include "boxes.hpp"

#include <string>

#include "error.hpp"

using namespace hiresvit;

namespace {

thread_local std::string last;

}  // namespace

extern "C" {

struct CAnchors {
  int strides, scales, ratios, per_level, max_boxes, stride[16];
  double scale[64], ratio[64], base, means[4], stds[4], size_clamp, score_threshold, iou_threshold;
};

const char* t_error() { return last.c_str(); }

// `logits` and `deltas` have a pointer for each stride; returns how many boxes there are, or -1.
int t_boxes(const CAnchors* c, int classes, int resize, int rounds, int divisor, double crop_pct, int height, int width,
            const void* const* logits, const void* const* deltas, int half, int picture_height, int picture_width,
            int most, Detection* out) {
  try {
    AnchorSpec anchors;
    anchors.strides.assign(c->stride, c->stride + c->strides);
    anchors.scales.assign(c->scale, c->scale + c->scales), anchors.ratios.assign(c->ratio, c->ratio + c->ratios);
    anchors.base = c->base, anchors.size_clamp = c->size_clamp, anchors.score_threshold = c->score_threshold;
    anchors.iou_threshold = c->iou_threshold, anchors.per_level = c->per_level, anchors.max_boxes = c->max_boxes;
    for (std::size_t i = 0; i < 4; ++i) anchors.means[i] = c->means[i], anchors.stds[i] = c->stds[i];
    PreprocessSpec preprocess;
    preprocess.resize = static_cast<Resize>(resize), preprocess.rounds = rounds != 0;
    preprocess.divisor = divisor, preprocess.crop_pct = crop_pct;
    std::vector<BoxMaps> maps;
    for (int at = 0; at < c->strides; ++at) maps.push_back({logits[at], deltas[at], half != 0, half != 0});
    Boxes boxes(anchors, classes, preprocess, Size{height, width});
    return boxes.find(maps, Size{picture_height, picture_width}, most, out);
  } catch (const Error& error) {
    last = error.what();
    return -1;
  }
}

}  // extern "C"
