#include "cuda.hpp"

#include <unistd.h>

#include "error.hpp"
#include "library.hpp"

namespace hiresvit {

// Names, arguments and numbers are those of the driver's interface (cuda.h); CUresult is an int whose 0 is success.
struct CudaCalls {
  int (*init)(unsigned);
  int (*error_name)(int, const char**);
  int (*error_string)(int, const char**);
  int (*device_count)(int*);
  int (*device_get)(int*, int);
  int (*device_name)(char*, int, int);
  int (*device_attribute)(int*, int, int);
  int (*context_retain)(void**, int);
  int (*context_release)(int);
  int (*context_push)(void*);
  int (*context_pop)(void**);
  int (*memory_alloc)(GpuAddress*, std::size_t);
  int (*memory_free)(GpuAddress);
  int (*host_alloc)(void**, std::size_t, unsigned);
  int (*host_free)(void*);
  int (*host_address)(GpuAddress*, void*, unsigned);
  int (*copy_to_gpu)(GpuAddress, const void*, std::size_t, void*);
  int (*copy_to_host)(void*, GpuAddress, std::size_t, void*);
  int (*stream_create)(void**, unsigned);
  int (*stream_destroy)(void*);
  int (*stream_synchronize)(void*);
  int (*event_create)(void**, unsigned);
  int (*event_destroy)(void*);
  int (*event_record)(void*, void*);
  int (*event_synchronize)(void*);
  int (*event_elapsed)(float*, void*, void*);
  int (*capture_begin)(void*, int);
  int (*capture_end)(void*, void**);
  int (*graph_instantiate)(void**, void*, unsigned long long);
  int (*graph_launch)(void*, void*);
  int (*graph_destroy)(void*);
  int (*exec_destroy)(void*);
};

namespace {

constexpr int kOutOfMemory = 2, kNoDevice = 100;           // CUresult
constexpr int kMajor = 75, kMinor = 76, kIntegrated = 18;  // CUdevice_attribute
constexpr unsigned kNonBlocking = 1;                       // CU_STREAM_NON_BLOCKING
constexpr unsigned kMapped = 2;                            // CU_MEMHOSTALLOC_DEVICEMAP
constexpr int kThreadLocal = 1;                            // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL

constexpr const char* kNoGpu =
    "a plan runs on an NVIDIA GPU, and this machine has none with a driver; run the .onnx graph instead";

// Whether an NVIDIA driver seems to be loaded: a PC, three generations of Jetson, WSL.
bool has_driver() {
  for (const char* path :
       {"/etc/nv_tegra_release", "/proc/driver/nvidia/version", "/dev/nvidia0", "/dev/nvhost-gpu", "/dev/dxg"})
    if (access(path, F_OK) == 0) return true;
  return false;
}

template <class Call>
void load(Call& call, const char* name) {
  call = reinterpret_cast<Call>(library_symbol("libcuda.so.1", name, "NVIDIA's driver", "update the driver"));
}

CudaCalls load_calls() {
  CudaCalls calls{};
  try {
    load(calls.init, "cuInit");
  } catch (const Error& error) {
    throw Error(kMissing, has_driver()
                              ? std::string(error.what()) + "; a container must be started with the GPU (--gpus all)"
                              : kNoGpu);
  }
  load(calls.error_name, "cuGetErrorName");
  load(calls.error_string, "cuGetErrorString");
  load(calls.device_count, "cuDeviceGetCount");
  load(calls.device_get, "cuDeviceGet");
  load(calls.device_name, "cuDeviceGetName");
  load(calls.device_attribute, "cuDeviceGetAttribute");
  load(calls.context_retain, "cuDevicePrimaryCtxRetain");
  load(calls.context_release, "cuDevicePrimaryCtxRelease_v2");
  load(calls.context_push, "cuCtxPushCurrent_v2");
  load(calls.context_pop, "cuCtxPopCurrent_v2");
  load(calls.memory_alloc, "cuMemAlloc_v2");
  load(calls.memory_free, "cuMemFree_v2");
  load(calls.host_alloc, "cuMemHostAlloc");
  load(calls.host_free, "cuMemFreeHost");
  load(calls.host_address, "cuMemHostGetDevicePointer_v2");
  load(calls.copy_to_gpu, "cuMemcpyHtoDAsync_v2");
  load(calls.copy_to_host, "cuMemcpyDtoHAsync_v2");
  load(calls.stream_create, "cuStreamCreate");
  load(calls.stream_destroy, "cuStreamDestroy_v2");
  load(calls.stream_synchronize, "cuStreamSynchronize");
  load(calls.event_create, "cuEventCreate");
  load(calls.event_destroy, "cuEventDestroy_v2");
  load(calls.event_record, "cuEventRecord");
  load(calls.event_synchronize, "cuEventSynchronize");
  load(calls.event_elapsed, "cuEventElapsedTime");
  load(calls.capture_begin, "cuStreamBeginCapture_v2");
  load(calls.capture_end, "cuStreamEndCapture");
  load(calls.graph_instantiate, "cuGraphInstantiateWithFlags");
  load(calls.graph_launch, "cuGraphLaunch");
  load(calls.graph_destroy, "cuGraphDestroy");
  load(calls.exec_destroy, "cuGraphExecDestroy");
  return calls;
}

const CudaCalls& all_calls() {
  static const CudaCalls calls = load_calls();  // tried again if it throws
  return calls;
}

// "CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected"
std::string words(const CudaCalls& calls, int code) {
  const char *name = nullptr, *text = nullptr;
  if (calls.error_name(code, &name) != 0 || name == nullptr) return "error " + std::to_string(code);
  if (calls.error_string(code, &text) != 0 || text == nullptr) return name;
  return std::string(name) + ": " + text;
}

void check(const CudaCalls& calls, int code, const char* call, std::size_t size = 0) {
  if (code == 0) return;
  const std::string wanted = size != 0 ? " of " + std::to_string(size) + " bytes" : "";
  const std::string failed = std::string(call) + wanted + " failed (" + words(calls, code) + ")";
  if (code != kOutOfMemory) throw Error(kFailed, "CUDA: " + failed);
  throw Error(kFailed,
              "out of GPU memory: " + failed + "; close what else uses the GPU, or take a smaller batch or size");
}

Gpu describe(const CudaCalls& calls, int device) {
  char name[256] = "";
  int major = 0, minor = 0, integrated = 0;
  check(calls, calls.device_name(name, sizeof name, device), "cuDeviceGetName");
  check(calls, calls.device_attribute(&major, kMajor, device), "cuDeviceGetAttribute");
  check(calls, calls.device_attribute(&minor, kMinor, device), "cuDeviceGetAttribute");
  check(calls, calls.device_attribute(&integrated, kIntegrated, device), "cuDeviceGetAttribute");
  name[sizeof name - 1] = '\0';
  return {shown(name), std::to_string(major) + "." + std::to_string(minor), integrated != 0};
}

[[noreturn]] void no_gpu(const std::string& why) {
  throw Error(kMissing, "CUDA finds no GPU (" + why + "); check CUDA_VISIBLE_DEVICES, or run the .onnx graph");
}

}  // namespace

Cuda::Cuda(int device) : calls_(all_calls()) {
  int count = 0;
  if (const int code = calls_.init(0)) no_gpu(words(calls_, code));
  if (const int code = calls_.device_count(&count)) no_gpu(words(calls_, code));
  if (count == 0) no_gpu("it counts 0");
  if (device < 0 || device >= count)
    throw Error(kUsage, "GPU " + std::to_string(device) + " is none of this machine's " + std::to_string(count) +
                            "; they are counted from 0");
  check(calls_, calls_.device_get(&device_, device), "cuDeviceGet");
  gpu_ = describe(calls_, device_);
  check(calls_, calls_.context_retain(&context_, device_), "cuDevicePrimaryCtxRetain");
}

Cuda::~Cuda() { calls_.context_release(device_); }

bool Cuda::push() const noexcept { return calls_.context_push(context_) == 0; }

void Cuda::pop() const noexcept {
  void* popped = nullptr;
  calls_.context_pop(&popped);
}

Cuda::Current::Current(const Cuda& cuda) : cuda_(cuda) {
  check(cuda.calls_, cuda.calls_.context_push(cuda.context_), "cuCtxPushCurrent");
}

Cuda::Current::~Current() { cuda_.pop(); }

GpuMemory Cuda::gpu_memory(std::size_t size) const {
  GpuAddress made = 0;
  check(calls_, calls_.memory_alloc(&made, size), "cuMemAlloc", size);
  return {this, made, calls_.memory_free};
}

Handle Cuda::host_memory(std::size_t size, bool mapped) const {
  void* made = nullptr;
  check(calls_, calls_.host_alloc(&made, size, mapped ? kMapped : 0), "cuMemHostAlloc", size);
  return {this, made, calls_.host_free};
}

GpuAddress Cuda::address_of(void* mapped) const {
  GpuAddress found = 0;
  check(calls_, calls_.host_address(&found, mapped, 0), "cuMemHostGetDevicePointer");
  return found;
}

Handle Cuda::stream() const {
  void* made = nullptr;
  check(calls_, calls_.stream_create(&made, kNonBlocking), "cuStreamCreate");
  return {this, made, calls_.stream_destroy};
}

Handle Cuda::event() const {
  void* made = nullptr;
  check(calls_, calls_.event_create(&made, 0), "cuEventCreate");
  return {this, made, calls_.event_destroy};
}

void Cuda::copy_to_gpu(GpuAddress to, const void* from, std::size_t size, void* stream) const {
  check(calls_, calls_.copy_to_gpu(to, from, size, stream), "cuMemcpyHtoDAsync");
}

void Cuda::copy_to_host(void* to, GpuAddress from, std::size_t size, void* stream) const {
  check(calls_, calls_.copy_to_host(to, from, size, stream), "cuMemcpyDtoHAsync");
}

void Cuda::record(void* event, void* stream) const {
  check(calls_, calls_.event_record(event, stream), "cuEventRecord");
}

void Cuda::wait_event(void* event) const { check(calls_, calls_.event_synchronize(event), "cuEventSynchronize"); }

double Cuda::elapsed_ms(void* start, void* end) const {
  float found = 0;
  check(calls_, calls_.event_elapsed(&found, start, end), "cuEventElapsedTime");
  return static_cast<double>(found);
}

void Cuda::wait_stream(void* stream) const { check(calls_, calls_.stream_synchronize(stream), "cuStreamSynchronize"); }

void Cuda::drain(void* stream) const noexcept { calls_.stream_synchronize(stream); }

void Cuda::begin_capture(void* stream) const {
  // Other threads may allocate meanwhile; with the stricter mode that would spoil the recording.
  check(calls_, calls_.capture_begin(stream, kThreadLocal), "cuStreamBeginCapture");
}

Handle Cuda::end_capture(void* stream) const {
  void *graph = nullptr, *made = nullptr;
  check(calls_, calls_.capture_end(stream, &graph), "cuStreamEndCapture");
  const Handle owned(this, graph, calls_.graph_destroy);
  check(calls_, calls_.graph_instantiate(&made, graph, 0), "cuGraphInstantiate");
  return {this, made, calls_.exec_destroy};
}

void Cuda::drop_capture(void* stream) const noexcept {
  void* graph = nullptr;
  if (calls_.capture_end(stream, &graph) == 0 && graph != nullptr) calls_.graph_destroy(graph);
}

void Cuda::launch(void* graph, void* stream) const {
  check(calls_, calls_.graph_launch(graph, stream), "cuGraphLaunch");
}

}  // namespace hiresvit
