// hiresvit.hpp as an app has it.
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "hiresvit/hiresvit.hpp"

namespace {

void check_that(bool so, const char* what) {
  if (so) return;
  std::fprintf(stderr, "not so: %s\n", what);
  std::exit(1);
}

template <class Work>
int code_of(const Work& work) {
  try {
    work();
    return 0;
  } catch (const hiresvit::Error& error) {
    std::fprintf(stderr, "  said: %s\n", error.what());
    return error.code();
  }
}

}  // namespace

int main() {
  check_that(code_of([] { hiresvit::Engine("/no/such/folder"); }) == HIRESVIT_BAD_INPUT, "no bundle is bad input");
  const char* const bundle = std::getenv("HIRESVIT_TEST_BUNDLE");
  if (bundle == nullptr) return 77;
  hiresvit::Options options;
  options.threads = 1;
  hiresvit::Engine first(bundle, options);
  hiresvit::Engine engine(std::move(first));
  check_that(code_of([&] { first.info(); }) == HIRESVIT_USAGE, "what was moved away is closed");
  const hiresvit_info info = engine.info();
  const int height = info.camera_height ? info.camera_height : 50, width = info.camera_width ? info.camera_width : 70;
  const std::size_t pixels = static_cast<std::size_t>(height * width);
  const std::vector<std::uint8_t> rgb(3 * pixels, 100);
  const hiresvit::Picture picture = hiresvit::rgb(rgb.data(), height, width);
  if (info.task == HIRESVIT_SEGMENT) {
    std::vector<std::uint8_t> labels(pixels, 255);
    std::vector<std::int64_t> wide(pixels, -1);
    engine.segment(picture, labels.data());
    engine.segment(picture, wide.data());
    for (std::size_t pixel = 0; pixel < pixels; ++pixel) {
      check_that(labels[pixel] == wide[pixel], "labels of two types");
    }
    const int named = code_of([&] { engine.class_name(0); });
    check_that(named == (info.named_classes > 0 ? 0 : HIRESVIT_USAGE), "classes have names or have none");
  } else {
    const std::vector<hiresvit::Class> best = engine.classify(picture, 3);
    check_that(best.size() == 3 && best[0].probability >= best[1].probability, "the best comes first");
  }
  check_that(engine.output(0).data != nullptr && engine.times().network > 0, "the last frame is there");
  engine.close();
  check_that(code_of([&] { engine.submit(picture); }) == HIRESVIT_USAGE, "a closed engine says so");
  std::puts("ok");
}
