#include "postprocess.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "error.hpp"
#include "geometry.hpp"
#include "half.hpp"
#include "label_band.hpp"

namespace hiresvit {

namespace {

constexpr int kMostClasses = 1 << 20;

std::string text(Size size) { return std::to_string(size.height) + "x" + std::to_string(size.width); }

bool is_side(int value) { return value >= 1 && value <= kMostSide; }

void check_out(Size picture, const LabelsOut& out) {
  if (!is_side(picture.height) || !is_side(picture.width)) {
    throw Error(kBadInput, "labels of " + text(picture) + ": each side must be from 1 to " + std::to_string(kMostSide));
  }
  if (!out.labels || out.stride < picture.width) {
    throw Error(kBadInput, "labels of " + text(picture) + ": their rows must be given, at least " +
                               std::to_string(picture.width) + " apart and not " + std::to_string(out.stride));
  }
  if (out.confidence && out.confidence_stride < picture.width) {
    throw Error(kBadInput, "confidence of " + text(picture) + ": its rows must be at least " +
                               std::to_string(picture.width) + " apart and not " +
                               std::to_string(out.confidence_stride));
  }
}

// With strides where they were left out.
Logits whole_logits(Logits logits) {
  const auto shape = [&] { return std::to_string(logits.classes) + "x" + text(Size{logits.height, logits.width}); };
  if (!logits.data || logits.classes < 1 || logits.classes > kMostClasses || !is_side(logits.height) ||
      !is_side(logits.width)) {
    throw Error(kBadInput,
                "logits of " + shape() + ": there must be some, with sides from 1 to " + std::to_string(kMostSide));
  }
  if (!logits.row_stride) logits.row_stride = logits.width;
  if (!logits.class_stride) logits.class_stride = logits.row_stride * logits.height;
  if (logits.row_stride < logits.width || logits.class_stride < logits.width) {
    throw Error(kBadInput, "logits of " + shape() + ": strides of " + std::to_string(logits.class_stride) + " and " +
                               std::to_string(logits.row_stride) + " are less than a row");
  }
  return logits;
}

struct Asked {
  Size logits, picture;
  bool operator==(const Asked& other) const { return logits == other.logits && picture == other.picture; }
};

template <class From, class To>
void nearest_row(const From* from, const std::vector<int>& columns, int width, To* to) {
  for (int x = 0; x < width; ++x) to[x] = static_cast<To>(from[columns[static_cast<std::size_t>(x)]]);
}

template <class From>
void nearest_row(const LabelsIn& labels, int row, const std::vector<int>& columns, int width, int y,
                 const LabelsOut& out) {
  const From* from = static_cast<const From*>(labels.labels) + row * labels.stride;
  switch (out.type) {
    case LabelType::u8:
      return nearest_row(from, columns, width, static_cast<std::uint8_t*>(out.labels) + y * out.stride);
    case LabelType::i32:
      return nearest_row(from, columns, width, static_cast<std::int32_t*>(out.labels) + y * out.stride);
    case LabelType::i64:
      return nearest_row(from, columns, width, static_cast<std::int64_t*>(out.labels) + y * out.stride);
  }
}

void nearest_places(int target, int start, int side, std::vector<int>& out) {
  out.resize(static_cast<std::size_t>(target));
  for (int i = 0; i < target; ++i) {
    out[static_cast<std::size_t>(i)] = start + static_cast<int>((i + 0.5) * side / target);
  }
}

}  // namespace

struct Postprocess::State {
  PreprocessSpec spec;
  Size imgsz;
  Threads* threads;
  Asked asked;
  Grid grid;
  std::vector<LabelBand> bands;
  std::vector<int> rows, columns;  // of the nearest

  // Of windows the logits lie over the whole scaled picture.
  Size whole(Size picture) const { return spec.resize == Resize::slide ? sliding_size(picture, spec, imgsz) : imgsz; }
};

Postprocess::Postprocess(const PreprocessSpec& spec, Size imgsz, Threads& threads) : state_(std::make_unique<State>()) {
  check_spec(spec, imgsz);
  state_->spec = spec;
  state_->imgsz = imgsz;
  state_->threads = &threads;
}

Postprocess::~Postprocess() = default;
Postprocess::Postprocess(Postprocess&&) noexcept = default;
Postprocess& Postprocess::operator=(Postprocess&&) noexcept = default;

void Postprocess::labels(const Logits& given, Size picture, const LabelsOut& out) {
  State& state = *state_;
  check_out(picture, out);
  const Logits logits = whole_logits(given);
  if (out.type == LabelType::u8 && logits.classes > 256) {
    throw Error(kBadInput, std::to_string(logits.classes) + " classes do not fit into uint8 labels; take int32");
  }
  const Asked asked{Size{logits.height, logits.width}, picture};
  if (!(asked == state.asked)) {
    state.asked = Asked{};  // until the grid is whole
    const Region region = place(picture, state.spec, state.imgsz).region;
    state.grid.make(logits, picture, region, state.whole(picture));
    state.asked = asked;
  }
  const int count = std::clamp(picture.height / 16, 1, state.threads->count() == 1 ? 1 : state.threads->count() * 2);
  if (state.bands.size() < static_cast<std::size_t>(count)) state.bands.resize(static_cast<std::size_t>(count));
  for (LabelBand& band : state.bands) band.prepare(logits, state.grid, out.confidence != nullptr);
  std::atomic<bool> finite{true};
  state.threads->run(count, [&](int i) {
    const auto edge = [&](int part) { return static_cast<int>(std::int64_t{picture.height} * part / count); };
    LabelBand& band = state.bands[static_cast<std::size_t>(i)];
    if (!band.run(logits, state.grid, edge(i), edge(i + 1), out)) finite = false;
  });
  if (!finite) throw Error(kFailed, "the network gave logits that are NaN or Inf; compare with fp32");
}

void Postprocess::nearest(const LabelsIn& labels, Size picture, const LabelsOut& out) {
  State& state = *state_;
  check_out(picture, out);
  const Size whole = state.whole(picture);
  if (!labels.labels || labels.size != whole || labels.stride < whole.width) {
    throw Error(kBadInput, "labels of " + text(labels.size) + " with rows " + std::to_string(labels.stride) +
                               " apart: they must be of the network's size, " + text(whole));
  }
  const Region region = place(picture, state.spec, state.imgsz).region;
  nearest_places(picture.height, region.top, region.height, state.rows);
  nearest_places(picture.width, region.left, region.width, state.columns);
  const int count = std::clamp(picture.height / 16, 1, state.threads->count() * 4);
  state.threads->run(count, [&](int part) {
    const auto edge = [&](int i) { return static_cast<int>(std::int64_t{picture.height} * i / count); };
    for (int y = edge(part); y < edge(part + 1); ++y) {
      const int row = state.rows[static_cast<std::size_t>(y)];
      switch (labels.type) {
        case LabelType::u8: nearest_row<std::uint8_t>(labels, row, state.columns, picture.width, y, out); break;
        case LabelType::i32: nearest_row<std::int32_t>(labels, row, state.columns, picture.width, y, out); break;
        case LabelType::i64: nearest_row<std::int64_t>(labels, row, state.columns, picture.width, y, out);
      }
    }
  });
}

void top_classes(const void* logits, bool half, int count, int k, double* scratch, std::int32_t* classes,
                 double* probabilities) {
  if (!logits || !scratch || !classes || !probabilities || count < 1 || k < 1 || k > count) {
    throw Error(kBadInput, "the best " + std::to_string(k) + " of " + std::to_string(count) +
                               " classes: there must be as many, and a place for each");
  }
  double most = 0, sum = 0;
  for (int i = 0; i < count; ++i) {
    scratch[i] = half ? from_half(static_cast<const std::uint16_t*>(logits)[i]) : static_cast<const float*>(logits)[i];
    if (!std::isfinite(scratch[i]))
      throw Error(kFailed, "the network gave logits that are NaN or Inf; compare with fp32");
    most = i ? std::max(most, scratch[i]) : scratch[i];
  }
  for (int i = 0; i < count; ++i) sum += scratch[i] = std::exp(scratch[i] - most);
  for (int i = 0; i < count; ++i) scratch[i] /= sum;
  for (int rank = 0; rank < k; ++rank) {  // k is small
    int best = -1;
    for (int i = 0; i < count; ++i) {
      const bool taken = rank && (scratch[i] > probabilities[rank - 1] ||
                                  (scratch[i] == probabilities[rank - 1] && i <= classes[rank - 1]));
      if (!taken && (best < 0 || scratch[i] > scratch[best])) best = i;
    }
    classes[rank] = best;
    probabilities[rank] = scratch[best];
  }
}

}  // namespace hiresvit
