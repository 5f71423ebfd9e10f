#include "tensorrt_case.hpp"

#include <dlfcn.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <new>

#include "error.hpp"
#include "sha256.hpp"

namespace {

std::atomic<long> counted{0};

void* counting(std::size_t size) {
  if (fake_cuda::inside() == 0) ++counted;
  if (void* const made = std::malloc(size != 0 ? size : 1)) return made;
  throw std::bad_alloc();
}

void* symbol(const std::string& library, const char* name) {
  void* const opened = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) std::fprintf(stderr, "%s\n", dlerror());
  CHECK(opened != nullptr);
  void* const found = dlsym(opened, name);
  CHECK(found != nullptr);
  return found;
}

void write(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary);
  file << bytes;
  CHECK(file.flush());
}

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

void* operator new(std::size_t size) { return counting(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

long allocations() { return counted; }

std::string build_folder;

std::string Library::path() const { return build_folder + (rtx ? "/libtensorrt_rtx.so.1" : "/libnvinfer.so.10"); }

fake_tensorrt::State& Library::state() const {
  return *reinterpret_cast<decltype(&fake_tensorrt_state)>(symbol(path(), "fake_tensorrt_state"))();
}

std::string Library::plan_bytes() const {
  const std::string body = "and here y = 2 x + 1 is computed";
  std::string bytes = rtx ? "vtrt" : "ftrt";
  bytes += std::string(12, '\0');
  bytes += static_cast<char>(28 + body.size()) + std::string(7, '\0');
  bytes += rtx ? std::string("\1\7\1\164") : std::string("\12\3\0\36", 4);
  return bytes + body;
}

Case::Case(bool rtx, bool integrated) : library{rtx}, trt(library.state()), cuda(fake_cuda::state()) {
  reinterpret_cast<decltype(&fake_tensorrt_reset)>(symbol(library.path(), "fake_tensorrt_reset"))();
  fake_cuda::reset();
  cuda.integrated = integrated;
  if (rtx) cuda.name = "NVIDIA GeForce RTX 4090", cuda.minor = 9;
  char folder[] = "/tmp/tensorrt_XXXXXX";
  CHECK(mkdtemp(folder) != nullptr);
  plan = std::string(folder) + "/a.plan";
  options.library = library.path();
  write_plan(library.plan_bytes());
  write_sidecar();
}

Case::~Case() {
  for (const auto& [kind, count] : fake_cuda::held()) {
    std::fprintf(stderr, "%d %s left\n", count, kind.c_str());
    std::exit(1);
  }
  for (const auto& [kind, count] : trt.alive) CHECK(count == 0);
  remove_sidecar();
  unlink(plan.c_str());
  rmdir(plan.substr(0, plan.rfind('/')).c_str());
}

void Case::write_plan(const std::string& bytes) { write(plan, bytes); }

void Case::write_sidecar(const std::vector<std::pair<std::string, std::string>>& replaced) {
  const std::string bytes = read(plan);
  utsname system{};
  uname(&system);
  std::string text = R"({"kind": "hiresvit-plan", "schema_version": 1, "graph": "a.onnx", "report": {"backend": ")";
  text += library.rtx ? R"(tensorrt_rtx", "version": "1.7.1.116")" : R"(tensorrt", "version": "10.3.0.30")";
  text += R"(, "platform": ")" + std::string(system.sysname) + " " + system.machine + R"(", "compute_capability": ")";
  text += library.rtx ? R"(8.0 and later", "plan_bytes": )" : R"(8.7", "plan_bytes": )";
  text += std::to_string(bytes.size()) + R"(, "plan_sha256": ")" + hiresvit::sha256(bytes.data(), bytes.size());
  text += R"(", "flags": {"builder_flags": ["TF32"]}}, "layers": [], "metadata": {}})";
  for (const auto& [old, now] : replaced) {
    const auto at = text.find(old);
    CHECK(at != std::string::npos);
    text.replace(at, old.size(), now);
  }
  write(plan + ".json", text);
}

void Case::remove_sidecar() { unlink((plan + ".json").c_str()); }

std::unique_ptr<hiresvit::Backend> Case::open() {
  const std::string module = library.rtx ? "/libhiresvit_tensorrt_rtx_fake.so" : "/libhiresvit_tensorrt_fake.so";
  setenv("HIRESVIT_TENSORRT_MODULE", (build_folder + module).c_str(), 1);
  return hiresvit::open_tensorrt(plan, options);
}

Refusal Case::refused() {
  const Refusal found = refusal_of([&] { open(); });
  CHECK(found.code != 0);
  CHECK(found.words.find('\n') == std::string::npos);
  CHECK(fake_cuda::held().empty());
  return found;
}

Refusal refusal_of(const std::function<void()>& call) {
  try {
    call();
    return {};
  } catch (const hiresvit::Error& error) {  // made in the module and caught here
    return {error.code, error.what()};
  }
}

bool says(const Refusal& refusal, int code, const std::string& part) {
  const bool does = refusal.code == code && refusal.words.find(part) != std::string::npos;
  if (!does) std::fprintf(stderr, "it says %d: %s\n", refusal.code, refusal.words.c_str());
  return does;
}

void fill(hiresvit::Backend& backend, int slot, float start) {
  auto* const x = static_cast<float*>(backend.input(slot, 0));
  for (std::size_t i = 0; i < backend.inputs()[0].bytes / sizeof(float); ++i) x[i] = start + static_cast<float>(i);
}

bool is_right(hiresvit::Backend& backend, int slot, float start) {
  const auto* const y = static_cast<const float*>(backend.output(slot, 0));
  for (std::size_t i = 0; i < backend.outputs()[0].bytes / sizeof(float); ++i)
    if (!(std::fabs(y[i] - (2 * (start + static_cast<float>(i)) + 1)) < 0.25F)) return false;
  return true;
}

void frame(hiresvit::Backend& backend, int slot, float start) {
  fill(backend, slot, start);
  backend.submit(slot), backend.wait(slot);
  CHECK(is_right(backend, slot, start));
}
