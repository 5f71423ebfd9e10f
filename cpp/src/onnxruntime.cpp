// ONNX Runtime through its C API, from a library that is opened by path. The session is as
// hiresvit/runtime/onnxruntime_runner.py wants one.
#include <onnxruntime/onnxruntime_c_api.h>

#include <array>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include "backend.hpp"
#include "error.hpp"
#include "library.hpp"
#include "marked.hpp"
#include "qnn.hpp"

namespace hiresvit {
namespace {

constexpr unsigned kApi = 18;  // all that is called here is in it; libraries keep every API since their first
static_assert(kApi <= ORT_API_VERSION, "headers of ONNX Runtime 1.18 or newer are needed");
constexpr int kSlots = 2;
constexpr std::size_t kAligned = 64;             // a cache line, and the widest vector
constexpr std::size_t kMostBytes = 1ull << 32;  // of one tensor: a mistake and no picture

template <class T>
using Owned = std::unique_ptr<T, void (*)(T*)>;

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<void, Free>;

Buffer make_buffer(std::size_t bytes) {
  const std::size_t whole = (bytes + kAligned - 1) / kAligned * kAligned;
  Buffer buffer(std::aligned_alloc(kAligned, whole > 0 ? whole : kAligned));
  if (!buffer) throw Error(kFailed, "no memory for " + std::to_string(bytes) + " bytes of a network's tensors");
  std::memset(buffer.get(), 0, bytes);
  return buffer;
}

std::string first_line(const char* text) {
  const std::string all = text != nullptr ? text : "";
  return shown(all.substr(0, all.find('\n')), 400);
}

struct Library {
  const OrtApi* api = nullptr;
  std::string version;

  void check(OrtStatus* status, int code, const std::string& what) const {
    if (status == nullptr) return;
    const std::string said = first_line(api->GetErrorMessage(status));
    api->ReleaseStatus(status);
    throw Error(code, what + " (" + said + ")");
  }
};

Library open_library(const std::string& asked) {
  const std::string path = first_named(asked, "HIRESVIT_ONNXRUNTIME", "libonnxruntime.so.1");
  const std::string advice =
      "give the path of libonnxruntime.so of version 1." + std::to_string(kApi) +
      " or newer, as the option library or in HIRESVIT_ONNXRUNTIME; pip's onnxruntime has one in its folder capi";
  const auto base = reinterpret_cast<decltype(&OrtGetApiBase)>(
      library_symbol(path, "OrtGetApiBase", "ONNX Runtime", advice))();
  Library library;
  library.version = shown(base->GetVersionString(), 40);
  unsigned major = 0, minor = 0;
  const bool read = std::sscanf(library.version.c_str(), "%u.%u", &major, &minor) == 2;
  // An API that it lacks it would also name on stderr, so that it is only asked for one that it has.
  if (read && (major > 1 || minor >= kApi)) library.api = base->GetApi(kApi);
  if (library.api == nullptr) {
    throw Error(kMissing, path + " is ONNX Runtime " + library.version + ", which lacks API " + std::to_string(kApi) +
                              " that this hiresvit was compiled for; " + advice);
  }
  return library;
}

struct Kind {
  ONNXTensorElementDataType onnx;
  Type type;
  std::size_t bytes;
};
constexpr Kind kKinds[] = {
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, Type::u8, 1},   {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, Type::i32, 4},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, Type::i64, 8},  {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, Type::f16, 2},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, Type::f32, 4},
};

class OnnxRuntime final : public Backend {
 public:
  OnnxRuntime(const std::string& graph, const BackendOptions& options, const Context* context);
  ~OnnxRuntime() override;
  const std::vector<TensorInfo>& inputs() const override { return inputs_; }
  const std::vector<TensorInfo>& outputs() const override { return outputs_; }
  void* input(int slot, std::size_t index) override { return slots_[slot].memory[index].get(); }
  const void* output(int slot, std::size_t index) override {
    return slots_[slot].memory[inputs_.size() + index].get();
  }
  void submit(int slot) override;
  void wait(int slot) override;
  const std::string& about() const override { return about_; }
  bool emulated() const override { return emulated_; }

 private:
  struct Slot {
    std::vector<Buffer> memory;  // of the inputs, then of the outputs
    std::vector<Owned<OrtValue>> values;
    Owned<OrtIoBinding> binding{nullptr, nullptr};
    bool done = false;
    OrtStatus* status = nullptr;
  };
  void open_session(const std::string& graph, const BackendOptions& options, const Context* context);
  std::vector<TensorInfo> describe(bool inputs, const std::string& graph) const;
  TensorInfo describe_one(OrtTypeInfo* type, std::string name, const std::string& graph) const;
  void bind(Slot& slot) const;
  void work();

  Library library_;
  std::string graph_, about_;
  bool emulated_ = false;
  Owned<OrtEnv> env_{nullptr, nullptr};
  Owned<OrtSession> session_{nullptr, nullptr};
  Owned<OrtMemoryInfo> memory_info_{nullptr, nullptr};
  std::vector<TensorInfo> inputs_, outputs_;
  std::array<Slot, kSlots> slots_;

  std::mutex mutex_;  // guards what follows, and done and status of a slot
  std::condition_variable asked_, answered_;
  std::array<int, kSlots> queue_{};
  unsigned taken_ = 0, given_ = 0;
  bool stop_ = false;
  std::thread worker_;
};

OnnxRuntime::OnnxRuntime(const std::string& graph, const BackendOptions& options, const Context* context)
    : library_(open_library(options.library)), graph_(graph), emulated_(context != nullptr && kHtpEmulated) {
  about_ = "ONNX Runtime " + library_.version + ", " +
           (context == nullptr ? "CPU" : "HTP of soc_model " + std::to_string(context->soc_model)) +
           (emulated_ ? ", emulated" : "");
  open_session(graph, options, context);
  inputs_ = describe(true, graph);
  outputs_ = describe(false, graph);
  OrtMemoryInfo* info = nullptr;
  library_.check(library_.api->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &info), kFailed,
                 "ONNX Runtime has no memory of the CPU");
  memory_info_ = {info, library_.api->ReleaseMemoryInfo};
  for (Slot& slot : slots_) bind(slot);
  worker_ = std::thread([this] { work(); });
}

OnnxRuntime::~OnnxRuntime() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  asked_.notify_one();
  if (worker_.joinable()) worker_.join();
  for (Slot& slot : slots_) {
    if (slot.status != nullptr) library_.api->ReleaseStatus(slot.status);
  }
}

void OnnxRuntime::open_session(const std::string& graph, const BackendOptions& options, const Context* context) {
  const OrtApi& api = *library_.api;
  const std::string failed = "ONNX Runtime does not start";
  OrtEnv* env = nullptr;
  // Every error reaches the caller, so that the log would only repeat it on stderr.
  library_.check(api.CreateEnv(ORT_LOGGING_LEVEL_FATAL, "hiresvit", &env), kFailed, failed);
  env_ = {env, api.ReleaseEnv};
  library_.check(api.DisableTelemetryEvents(env), kFailed, failed);
  OrtSessionOptions* made = nullptr;
  library_.check(api.CreateSessionOptions(&made), kFailed, failed);
  const Owned<OrtSessionOptions> settings(made, api.ReleaseSessionOptions);
  library_.check(api.SetSessionLogSeverityLevel(made, ORT_LOGGING_LEVEL_FATAL), kFailed, failed);
  // Q/DQ as written: see hiresvit/runtime/onnxruntime_runner.py
  library_.check(api.AddSessionConfigEntry(made, "session.disable_quant_qdq", "1"), kFailed, failed);
  // Its threads do not spin for the next frame on the cores that this one's labels need.
  library_.check(api.AddSessionConfigEntry(made, "session.force_spinning_stop", "1"), kFailed, failed);
  if (options.threads > 0) {
    library_.check(api.SetIntraOpNumThreads(made, options.threads), kFailed, failed);
  }
  if (context != nullptr) append_qnn(api, library_.version, env, made, options, *context);
  OrtSession* session = nullptr;
  OrtStatus* const status = api.CreateSession(env, graph.c_str(), made, &session);
  if (context != nullptr) {
    check_context(api, status, graph, *context);
  } else {
    library_.check(status, kIllegalGraph, graph + ": ONNX Runtime " + library_.version + " does not take this graph");
  }
  session_ = {session, api.ReleaseSession};
}

std::vector<TensorInfo> OnnxRuntime::describe(bool inputs, const std::string& graph) const {
  const OrtApi& api = *library_.api;
  const std::string failed = graph + ": its inputs and outputs cannot be read";
  OrtAllocator* allocator = nullptr;
  library_.check(api.GetAllocatorWithDefaultOptions(&allocator), kFailed, failed);
  std::size_t count = 0;
  library_.check((inputs ? api.SessionGetInputCount : api.SessionGetOutputCount)(session_.get(), &count), kFailed,
                 failed);
  std::vector<TensorInfo> found;
  for (std::size_t index = 0; index < count; ++index) {
    char* text = nullptr;
    library_.check((inputs ? api.SessionGetInputName : api.SessionGetOutputName)(session_.get(), index, allocator,
                                                                                  &text),
                   kFailed, failed);
    std::string name = text;
    library_.check(api.AllocatorFree(allocator, text), kFailed, failed);
    OrtTypeInfo* type = nullptr;
    library_.check((inputs ? api.SessionGetInputTypeInfo : api.SessionGetOutputTypeInfo)(session_.get(), index, &type),
                   kFailed, failed);
    const Owned<OrtTypeInfo> owner(type, api.ReleaseTypeInfo);
    found.push_back(describe_one(type, std::move(name), graph));
  }
  return found;
}

TensorInfo OnnxRuntime::describe_one(OrtTypeInfo* type, std::string name, const std::string& graph) const {
  const OrtApi& api = *library_.api;
  const std::string where = graph + ": " + shown(name);
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;  // of the type's
  library_.check(api.CastTypeInfoToTensorInfo(type, &tensor), kFailed, where);
  if (tensor == nullptr) throw Error(kUsage, where + " is no tensor");
  ONNXTensorElementDataType element{};
  std::size_t rank = 0;
  library_.check(api.GetTensorElementType(tensor, &element), kFailed, where);
  library_.check(api.GetDimensionsCount(tensor, &rank), kFailed, where);
  TensorInfo info{std::move(name), Type::f32, std::vector<std::int64_t>(rank), 0};
  library_.check(api.GetDimensions(tensor, info.shape.data(), rank), kFailed, where);
  for (const Kind& kind : kKinds) {
    if (kind.onnx == element) info.type = kind.type, info.bytes = kind.bytes;
  }
  if (info.bytes == 0) throw Error(kUsage, where + " is of a type that no contract of hiresvit has");
  if (rank > 0 && info.shape[0] < 0) info.shape[0] = 1;  // an open batch takes one frame
  for (const std::int64_t side : info.shape) {
    if (side < 0) throw Error(kUsage, where + " has an open axis besides its batch; export the graph at one size");
    if (side == 0 || info.bytes > kMostBytes / static_cast<std::uint64_t>(side)) {
      throw Error(kUsage, where + " has a size that is no picture's");
    }
    info.bytes *= static_cast<std::size_t>(side);
  }
  return info;
}

void OnnxRuntime::bind(Slot& slot) const {
  const OrtApi& api = *library_.api;
  const std::string failed = "ONNX Runtime does not take our buffers";
  OrtIoBinding* binding = nullptr;
  library_.check(api.CreateIoBinding(session_.get(), &binding), kFailed, failed);
  slot.binding = {binding, api.ReleaseIoBinding};
  for (const std::vector<TensorInfo>* side : {&inputs_, &outputs_}) {
    for (const TensorInfo& info : *side) {
      ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
      for (const Kind& kind : kKinds) {
        if (kind.type == info.type) element = kind.onnx;
      }
      slot.memory.push_back(make_buffer(info.bytes));
      OrtValue* value = nullptr;
      library_.check(api.CreateTensorWithDataAsOrtValue(memory_info_.get(), slot.memory.back().get(), info.bytes,
                                                        info.shape.data(), info.shape.size(), element, &value),
                     kFailed, failed);
      slot.values.emplace_back(value, api.ReleaseValue);
      library_.check((side == &inputs_ ? api.BindInput : api.BindOutput)(binding, info.name.c_str(), value), kFailed,
                     failed);
    }
  }
}

void OnnxRuntime::submit(int slot) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    slots_[slot].done = false;
    queue_[given_++ % kSlots] = slot;
  }
  asked_.notify_one();
}

void OnnxRuntime::wait(int slot) {
  std::unique_lock<std::mutex> lock(mutex_);
  answered_.wait(lock, [&] { return slots_[slot].done; });
  OrtStatus* const status = std::exchange(slots_[slot].status, nullptr);
  lock.unlock();
  if (status != nullptr) library_.check(status, kFailed, graph_ + ": ONNX Runtime failed on this input");
}

void OnnxRuntime::work() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    asked_.wait(lock, [&] { return stop_ || taken_ != given_; });
    if (stop_) return;
    Slot& slot = slots_[queue_[taken_++ % kSlots]];
    lock.unlock();
    OrtStatus* status = nullptr;
    {
      const Marked marked;
      status = library_.api->RunWithBinding(session_.get(), nullptr, slot.binding.get());
    }
    lock.lock();
    slot.status = status;
    slot.done = true;
    answered_.notify_one();
  }
}

}  // namespace

std::unique_ptr<Backend> open_onnxruntime(const std::string& graph, const BackendOptions& options) {
  return std::make_unique<OnnxRuntime>(graph, options, nullptr);
}

std::unique_ptr<Backend> open_context(const std::string& path, const Context& context, const BackendOptions& options) {
  if (options.soc_model != 0 && options.soc_model != context.soc_model) {
    throw Error(kDamaged, path + " was compiled for soc_model " + std::to_string(context.soc_model) + ", not for " +
                              std::to_string(options.soc_model) + "; build it again for that");
  }
  return std::make_unique<OnnxRuntime>(path, options, &context);
}

}  // namespace hiresvit
