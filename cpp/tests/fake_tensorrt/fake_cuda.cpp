#include "fake_cuda.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

namespace fake_cuda {
namespace {

constexpr int kOutOfMemory = 2;

using Work = std::function<double()>;
struct Memory {
  std::string kind;  // "device", "pinned", "mapped"
  std::unique_ptr<unsigned char[]> bytes;
  std::size_t size;
};
struct Item {
  Work work;
  void* event;
};
struct Event {
  void* stream = nullptr;
  bool passed = false;
  double at = 0;
};

struct World {
  State state;
  std::map<void*, Memory> memory;
  std::vector<std::unique_ptr<unsigned char[]>> graveyard;  // keeps addresses from being given out twice
  std::map<void*, std::deque<Item>> streams;
  std::map<void*, Event> events;
  std::map<void*, std::vector<Work>> graphs, executables;
  void* recording = nullptr;
  std::vector<Work> recorded;
  int contexts = 0;
  double clock = 0;
  std::uintptr_t next = 0x1000;
};

World& world() {
  static World it;
  return it;
}

thread_local int pushed = 0;

int call(const char* name, bool needs_context = true) {
  World& it = world();
  if (needs_context && pushed == 0) misuse(std::string(name) + " without a context");
  ++it.state.calls[name];
  const bool fails = it.state.counted++ == it.state.fail_at || it.state.failing.count(name) != 0;
  return fails ? 999 : 0;
}

int gave_back(const char* name) {
  if (pushed == 0) misuse(std::string(name) + " without a context");
  ++world().state.calls[name];
  return world().state.failing.count(name) != 0 ? 999 : 0;
}

void* handle() { return reinterpret_cast<void*>(world().next += 16); }

int allocate(const std::string& kind, std::size_t size, void** out) {
  World& it = world();
  if (it.recording != nullptr) misuse("allocated while recording");
  if (size == 0) misuse("0 bytes were asked for");
  if (bytes_held() + size > it.state.most) return kOutOfMemory;
  Memory made{kind, std::make_unique<unsigned char[]>(size), size};
  std::memset(made.bytes.get(), 0xAB, size);
  *out = made.bytes.get();
  it.memory.emplace(*out, std::move(made));
  return 0;
}

int release(const char* name, void* pointer, bool on_gpu) {
  World& it = world();
  const auto found = it.memory.find(pointer);
  if (found == it.memory.end() || (found->second.kind == "device") != on_gpu)
    misuse(std::string(name) + ": no such memory");
  std::memset(found->second.bytes.get(), 0xDD, found->second.size);
  it.graveyard.push_back(std::move(found->second.bytes));
  it.memory.erase(found);
  return gave_back(name);
}

void check_memory(void* pointer, std::size_t size, bool on_gpu) {
  const auto found = world().memory.find(pointer);
  if (found == world().memory.end()) misuse("no such memory: given back, or never had");
  const std::string& kind = found->second.kind;
  if (kind != "mapped" && (kind == "device") != on_gpu) misuse(kind + " memory on the wrong side");
  if (size > found->second.size) misuse("a copy larger than its memory");
}

int copy(const char* name, void* gpu, void* host, std::size_t size, void* stream, bool to_gpu) {
  const Inside inside_here;
  const int failed = call(name);
  check_memory(gpu, size, true), check_memory(host, size, false);
  queue(stream, [=] {
    check_memory(gpu, size, true), check_memory(host, size, false);
    to_gpu ? std::memcpy(gpu, host, size) : std::memcpy(host, gpu, size);
    return kCopyMs;
  });
  return failed;
}

// Does what is queued, up to an event if one is given.
void run(void* stream, void* until) {
  World& it = world();
  if (it.recording == stream) misuse("waited while recording");
  auto& items = it.streams.at(stream);
  while (!items.empty()) {
    const Item item = std::move(items.front());
    items.pop_front();
    if (item.work) it.clock += item.work();
    if (item.event != nullptr) it.events[item.event].passed = true, it.events[item.event].at = it.clock;
    if (until != nullptr && item.event == until) return;
  }
}

}  // namespace

State& state() { return world().state; }

int& inside() {
  static thread_local int depth = 0;
  return depth;
}

void reset() {
  if (!held().empty()) misuse("something is left");
  world().state = State{};
}

std::map<std::string, int> held() {
  const World& it = world();
  std::map<std::string, int> found;
  for (const auto& one : it.memory) ++found[one.second.kind];
  const auto count = [&](const char* kind, std::size_t size) {
    if (size != 0) found[kind] = static_cast<int>(size);
  };
  count("streams", it.streams.size()), count("events", it.events.size()), count("graphs", it.graphs.size());
  count("executables", it.executables.size()), count("contexts", static_cast<std::size_t>(it.contexts));
  count("recordings", it.recording != nullptr), count("pushed", static_cast<std::size_t>(pushed));
  return found;
}

std::size_t bytes_held() {
  std::size_t total = 0;
  for (const auto& one : world().memory) total += one.second.size;
  return total;
}

bool busy() {
  for (const auto& one : world().streams)
    if (!one.second.empty()) return true;
  return false;
}

void* make_stream() {
  void* const made = handle();
  world().streams[made];
  return made;
}

void drop_stream(void* stream) {
  if (world().streams.erase(stream) == 0) misuse("the caller's stream is gone");
}

void queue(void* stream, std::function<double()> work) {
  World& it = world();
  if (it.streams.find(stream) == it.streams.end()) misuse("no such stream");
  if (it.recording == stream)
    it.recorded.push_back(std::move(work));
  else
    it.streams[stream].push_back({std::move(work), nullptr});
}

bool is_recording(void* stream) { return world().recording == stream; }

void* at(void* address, std::size_t size) {
  check_memory(address, size, true);
  return address;
}

void misuse(const std::string& what) {
  std::fprintf(stderr, "CUDA is misused: %s\n", what.c_str());
  std::abort();
}

}  // namespace fake_cuda

using namespace fake_cuda;

extern "C" {

int cuInit(unsigned) { return state().init_error; }

int cuGetErrorName(int code, const char** text) {
  *text = code == kOutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY"
          : code == 100        ? "CUDA_ERROR_NO_DEVICE"
                               : "CUDA_ERROR_UNKNOWN";
  return 0;
}

int cuGetErrorString(int code, const char** text) {
  *text = code == kOutOfMemory ? "out of memory" : code == 100 ? "no CUDA-capable device is detected" : "unknown error";
  return 0;
}

int cuDeviceGetCount(int* count) { return *count = state().devices, 0; }
int cuDeviceGet(int* device, int index) { return *device = index, 0; }

int cuDeviceGetName(char* name, int size, int) {
  return std::snprintf(name, static_cast<std::size_t>(size), "%s", state().name.c_str()), 0;
}

int cuDeviceGetAttribute(int* value, int attribute, int) {
  if (attribute != 75 && attribute != 76 && attribute != 18) misuse("another attribute");
  *value = attribute == 75 ? state().major : attribute == 76 ? state().minor : state().integrated ? 1 : 0;
  return 0;
}

int cuDevicePrimaryCtxRetain(void** context, int) {
  if (const int failed = call("context_retain", false)) return failed;
  return *context = &world(), ++world().contexts, 0;
}

int cuDevicePrimaryCtxRelease_v2(int) {
  if (world().contexts-- == 0) misuse("the context was given back twice");
  return 0;
}

int cuCtxPushCurrent_v2(void* context) {
  const Inside inside_here;
  if (context != &world()) misuse("no such context");
  ++state().calls["context_push"];
  if (state().failing.count("context_push") != 0) return 999;
  return ++pushed, 0;
}

int cuCtxPopCurrent_v2(void** context) {
  if (pushed-- == 0) misuse("no context to pop");
  return *context = &world(), 0;
}

int cuMemAlloc_v2(std::uint64_t* out, std::size_t size) {
  if (const int failed = call("malloc")) return failed;
  void* made = nullptr;
  const int code = allocate("device", size, &made);
  return *out = reinterpret_cast<std::uintptr_t>(made), code;
}

int cuMemFree_v2(std::uint64_t pointer) { return release("free", reinterpret_cast<void*>(pointer), true); }

int cuMemHostAlloc(void** out, std::size_t size, unsigned flags) {
  if (const int failed = call("host_alloc")) return failed;
  return allocate(flags == 2 ? "mapped" : "pinned", size, out);
}

int cuMemFreeHost(void* pointer) { return release("host_free", pointer, false); }

int cuMemHostGetDevicePointer_v2(std::uint64_t* out, void* host, unsigned) {
  if (const int failed = call("device_pointer")) return failed;
  if (world().memory.at(host).kind != "mapped") misuse("the GPU does not see this memory");
  return *out = reinterpret_cast<std::uintptr_t>(host), 0;
}

int cuMemcpyHtoDAsync_v2(std::uint64_t to, const void* from, std::size_t size, void* stream) {
  return copy("copy_to_gpu", reinterpret_cast<void*>(to), const_cast<void*>(from), size, stream, true);
}

int cuMemcpyDtoHAsync_v2(void* to, std::uint64_t from, std::size_t size, void* stream) {
  return copy("copy_to_host", reinterpret_cast<void*>(from), to, size, stream, false);
}

int cuStreamCreate(void** stream, unsigned flags) {
  if (flags != 1) misuse("a stream that waits for the default stream");
  if (const int failed = call("stream_create")) return failed;
  world().streams[*stream = handle()];
  return 0;
}

int cuStreamDestroy_v2(void* stream) {
  if (!world().streams.at(stream).empty()) misuse("a stream is destroyed with work in its queue");
  world().streams.erase(stream);
  return gave_back("stream_destroy");
}

int cuStreamSynchronize(void* stream) {
  const Inside inside_here;
  const int failed = call("stream_synchronize");
  run(stream, nullptr);
  return failed;
}

int cuEventCreate(void** event, unsigned) {
  if (const int failed = call("event_create")) return failed;
  world().events[*event = handle()];
  return 0;
}

int cuEventDestroy_v2(void* event) {
  if (world().events.erase(event) == 0) misuse("no such event");
  return gave_back("event_destroy");
}

int cuEventRecord(void* event, void* stream) {
  const Inside inside_here;
  const int failed = call("event_record");
  if (world().recording != nullptr) misuse("an event of a graph has no time");
  world().events.at(event) = {stream, false, 0};
  world().streams.at(stream).push_back({nullptr, event});
  return failed;
}

int cuEventSynchronize(void* event) {
  const Inside inside_here;
  const int failed = call("event_synchronize");
  const Event found = world().events.at(event);
  if (found.stream == nullptr) misuse("waited for an event that nobody recorded");
  if (!found.passed) run(found.stream, event);
  return failed;
}

int cuEventElapsedTime(float* ms, void* start, void* end) {
  const Inside inside_here;
  const Event &first = world().events.at(start), &last = world().events.at(end);
  if (!first.passed || !last.passed) misuse("an event was not passed yet");
  *ms = static_cast<float>(last.at - first.at);
  return call("event_elapsed");
}

int cuStreamBeginCapture_v2(void* stream, int mode) {
  if (mode != 1) misuse("a capture that other threads can spoil");
  if (world().recording != nullptr || !world().streams.at(stream).empty()) misuse("a capture of a busy stream");
  const int failed = call("capture_begin");
  if (failed == 0) world().recording = stream;
  return failed;
}

int cuStreamEndCapture(void* stream, void** graph) {
  if (world().recording != stream) misuse("nothing is recorded");
  const int failed = call("capture_end");
  world().recording = nullptr;
  if (failed == 0) world().graphs[*graph = handle()] = world().recorded;
  world().recorded.clear();
  return failed;
}

int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
  if (const int failed = call("graph_instantiate")) return failed;
  world().executables[*executable = handle()] = world().graphs.at(graph);
  return 0;
}

int cuGraphDestroy(void* graph) {
  if (world().graphs.erase(graph) == 0) misuse("no such graph");
  return gave_back("graph_destroy");
}

int cuGraphExecDestroy(void* executable) {
  if (busy()) misuse("a graph is destroyed while work is queued");
  if (world().executables.erase(executable) == 0) misuse("no such graph");
  return gave_back("executable_destroy");
}

int cuGraphLaunch(void* executable, void* stream) {
  const Inside inside_here;
  const int failed = call("graph_launch");
  for (const auto& work : world().executables.at(executable)) queue(stream, work);
  return failed;
}
}
