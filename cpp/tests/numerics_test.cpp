// No allocation after the first frame of a size, whatever is asked; and the sum of a text that is known.
#include <atomic>
#include <cstdlib>
#include <vector>

#include "boxes.hpp"
#include "check.hpp"
#include "postprocess.hpp"
#include "preprocess.hpp"
#include "sha256.hpp"

using namespace hiresvit;

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTED 1
extern "C" void* __libc_malloc(std::size_t);
extern "C" void* __libc_calloc(std::size_t, std::size_t);
extern "C" void* __libc_realloc(void*, std::size_t);
extern "C" void* __libc_memalign(std::size_t, std::size_t);

namespace {
std::atomic<bool> counting{false};
std::atomic<int> counted{0};
void count() {
  if (counting.load(std::memory_order_relaxed)) ++counted;
}
}  // namespace

extern "C" void* malloc(std::size_t size) { return count(), __libc_malloc(size); }
extern "C" void* calloc(std::size_t number, std::size_t size) { return count(), __libc_calloc(number, size); }
extern "C" void* realloc(void* old, std::size_t size) { return count(), __libc_realloc(old, size); }
extern "C" void* aligned_alloc(std::size_t to, std::size_t size) { return count(), __libc_memalign(to, size); }
#else
#define COUNTED 0
namespace {
std::atomic<bool> counting{false};
std::atomic<int> counted{0};
}  // namespace
#endif

namespace {

template <class Work>
int allocations(const Work& work) {
  work();
  counted = 0;
  counting = true;
  for (int i = 0; i < 3; ++i) work();
  counting = false;
  return counted;
}

void check_preprocess(Threads& threads) {
  std::vector<std::uint8_t> pixels(400 * 500 * 4, 99), out(128 * 160 * 4 * 2);
  std::vector<float> input(3 * 128 * 160);
  std::uint8_t* const planes[2] = {out.data(), out.data() + 128 * 160};
  for (const Resize resize : {Resize::stretch, Resize::crop, Resize::keep, Resize::letterbox, Resize::slide}) {
    for (const Filter filter : {Filter::bilinear, Filter::bicubic, Filter::lanczos, Filter::opencv}) {
      PreprocessSpec spec;
      spec.resize = resize;
      spec.filter = filter;
      spec.divisor = 8;
      Preprocess preprocess(spec, Size{128, 160}, threads);
      for (const Pixels layout : {Pixels::rgb, Pixels::bgra, Pixels::nv12}) {
        const Picture picture = packed_picture(layout, Yuv::bt709, 300, 414, pixels.data());
        const auto work = [&] {
          if (resize == Resize::slide) {
            preprocess.prepare_windows(picture);
            preprocess.window(0, 0, input.data());
            return;
          }
          preprocess.tensor(picture, input.data());
          const std::ptrdiff_t wide[2] = {160 * 4, 160};
          preprocess.pixels(picture, Pixels::rgba, Yuv::none, planes, wide);
          const std::ptrdiff_t strides[2] = {160, 160};
          preprocess.pixels(picture, Pixels::nv12, Yuv::bt601, planes, strides);
        };
        CHECK(allocations(work) == 0);
        // A camera that changes its size: buffers grow once, and then stay as they are for the smaller one, too.
        const Picture larger = packed_picture(layout, Yuv::bt709, 398, 500, pixels.data());
        if (resize != Resize::slide) CHECK(allocations([&] { preprocess.tensor(larger, input.data()); }) == 0);
      }
    }
  }
  const Picture rgb = packed_picture(Pixels::rgb, Yuv::none, 128, 160, pixels.data());
  const std::ptrdiff_t strides[2] = {160, 160};
  CHECK(allocations([&] { convert_pixels(rgb, Pixels::nv12, Yuv::bt709, planes, strides, threads); }) == 0);
}

void check_postprocess(Threads& threads) {
  std::vector<float> logits(19 * 64 * 80);
  std::vector<std::uint16_t> halves(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    logits[i] = static_cast<float>(i * 2654435761u % 1000) / 100;
    halves[i] = static_cast<std::uint16_t>(0x3000 + i * 2654435761u % 0x1000);
  }
  std::vector<std::int64_t> labels(400 * 500);
  std::vector<std::uint8_t> sure(400 * 500);
  for (const Resize resize : {Resize::stretch, Resize::letterbox}) {
    PreprocessSpec spec;
    spec.resize = resize;
    Postprocess postprocess(spec, Size{256, 320}, threads);
    for (const LabelType type : {LabelType::u8, LabelType::i32, LabelType::i64}) {
      for (const bool half : {false, true}) {
        for (const bool confidence : {false, true}) {
          const void* data = half ? static_cast<const void*>(halves.data()) : logits.data();
          const LabelsOut out{type, labels.data(), 500, confidence ? sure.data() : nullptr, 500};
          CHECK(allocations([&] {
                  postprocess.labels(Logits{data, half, 19, 64, 80, 0, 0}, Size{400, 500}, out);
                }) == 0);
        }
      }
      const LabelsOut out{LabelType::u8, sure.data(), 500, nullptr, 0};
      CHECK(allocations([&] {
              postprocess.nearest(LabelsIn{type, labels.data(), 320, Size{256, 320}}, Size{400, 500}, out);
            }) == 0);
    }
  }
  double scratch[19], probabilities[5];
  std::int32_t classes[5];
  CHECK(allocations([&] { top_classes(logits.data(), false, 19, 5, scratch, classes, probabilities); }) == 0);
}

void check_boxes() {
  AnchorSpec anchors;
  anchors.strides = {8, 16}, anchors.scales = {1, 1.5}, anchors.ratios = {0.5, 2};
  anchors.base = 4, anchors.stds = {1, 1, 1, 1}, anchors.size_clamp = 0.016, anchors.score_threshold = 0.05;
  anchors.per_level = 100, anchors.iou_threshold = 0.5, anchors.max_boxes = 20;
  std::vector<float> raw(4 * 5 * 8 * 12);
  for (std::size_t i = 0; i < raw.size(); ++i) raw[i] = static_cast<float>(i * 2654435761u % 1000) / 200 - 3;
  PreprocessSpec spec;
  spec.resize = Resize::letterbox;
  Boxes boxes(anchors, 5, spec, Size{64, 96});
  const std::vector<BoxMaps> maps(2, BoxMaps{raw.data(), raw.data(), false, false});
  Detection found[20];
  int count = 0;
  CHECK(allocations([&] { count = boxes.find(maps, Size{300, 400}, 20, found); }) == 0);
  CHECK(count == 20);
  CHECK(boxes.find(maps, Size{300, 400}, 3, found + 10) == 3 && found[10].score == found[0].score);
}

}  // namespace

int main() {
  Threads threads(2);
  check_preprocess(threads);
  check_postprocess(threads);
  check_boxes();
  if (COUNTED) {  // the count counts, also what new takes
    CHECK(allocations([] {
            std::vector<int> kept(1000);
            void* volatile seen = kept.data();
            static_cast<void>(seen);
          }) == 3);
    void* volatile kept = nullptr;
    CHECK(allocations([&] {
            kept = std::malloc(100);
            std::free(kept);
          }) == 3);
  }
  CHECK(sha256("abc", 3) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
