// No allocation by our code after the first frame of a size: every malloc of the process is counted, but for what a
// thread does inside the runtime's own run. With one thread the runtime has no others.
#include <atomic>
#include <new>

#include "check.hpp"
#include "engine.hpp"
#include "marked.hpp"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
int main() { return 77; }  // these have their own malloc
#else

extern "C" void* __libc_malloc(std::size_t);
extern "C" void* __libc_calloc(std::size_t, std::size_t);
extern "C" void* __libc_realloc(void*, std::size_t);
extern "C" void* __libc_memalign(std::size_t, std::size_t);

namespace {
std::atomic<bool> counting{false};
std::atomic<int> counted{0};
void count() {
  if (counting.load(std::memory_order_relaxed) && !hiresvit::inside_runtime) ++counted;
}
}  // namespace

extern "C" void* malloc(std::size_t size) { return count(), __libc_malloc(size); }
extern "C" void* calloc(std::size_t number, std::size_t size) { return count(), __libc_calloc(number, size); }
extern "C" void* realloc(void* old, std::size_t size) { return count(), __libc_realloc(old, size); }
extern "C" void* aligned_alloc(std::size_t to, std::size_t size) { return count(), __libc_memalign(to, size); }

using namespace hiresvit;

int main() {
  const char* const bundle = std::getenv("HIRESVIT_TEST_BUNDLE");
  if (bundle == nullptr) return 77;
  EngineOptions options;
  options.runtime.threads = 1;
  Engine engine(bundle, options);
  const ModelSpec& spec = engine.manifest().spec;
  const Size size = engine.manifest().contract.name == ContractName::camera ? *engine.manifest().contract.size
                                                                            : Size{270, 480};
  const std::size_t pixels = static_cast<std::size_t>(size.height * size.width);
  std::vector<std::uint8_t> rgb(3 * pixels, 90), labels(pixels), confidence(pixels);
  std::vector<std::int32_t> classes(5);
  std::vector<float> shares(5);
  Picture picture;
  picture.height = size.height, picture.width = size.width;
  picture.planes[0] = rgb.data(), picture.strides[0] = 3 * size.width;
  const bool sure = engine.manifest().contract.name == ContractName::tensor || engine.manifest().contract.confidence;
  const auto frame = [&] {
    Answer answer;
    answer.size = size;
    if (spec.task == Task::segment) {
      answer.labels = {LabelType::u8, labels.data(), size.width, sure ? confidence.data() : nullptr, size.width};
    } else {
      answer.k = 5, answer.classes = classes.data(), answer.probabilities = shares.data();
    }
    engine.submit(picture);
    engine.submit(picture);
    engine.wait(answer);
    answer.k = spec.task == Task::classify ? 5 : 0;
    engine.wait(answer);
  };
  frame();
  counting = true;
  for (int round = 0; round < 5; ++round) frame();
  counting = false;
  std::printf("%d allocations in 10 frames\n", counted.load());
  CHECK(counted == 0);
  counting = true;
  void* volatile kept = std::malloc(100);  // the count counts
  std::free(kept);
  counting = false;
  CHECK(counted > 0);
}
#endif
