// A plan on an NVIDIA GPU, through TensorRT or TensorRT-RTX: hiresvit/runtime/tensorrt_runner.py in C++, with two
// slots.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "backend.hpp"
#include "cuda.hpp"
#include "error.hpp"
#include "plan.hpp"
#include "tensorrt_library.hpp"

namespace hiresvit {
namespace {

using nvinfer1::Dims;

constexpr int kSlots = 2;

std::size_t size_of(Type type) {
  switch (type) {
    case Type::u8: return 1;
    case Type::f16: return 2;
    case Type::i64: return 8;
    default: return 4;
  }
}

const char* name_of(nvinfer1::DataType type) {
  constexpr std::array<const char*, 12> names = {"float32", "float16",  "int8",  "int32", "bool",   "uint8",
                                                 "float8",  "bfloat16", "int64", "int4",  "float4", "e8m0"};
  const auto at = static_cast<std::size_t>(type);
  return at < names.size() ? names[at] : "of an unknown type";
}

std::optional<Type> type_of(nvinfer1::DataType type) {
  switch (type) {
    case nvinfer1::DataType::kFLOAT: return Type::f32;
    case nvinfer1::DataType::kHALF: return Type::f16;
    case nvinfer1::DataType::kINT32: return Type::i32;
    case nvinfer1::DataType::kINT64: return Type::i64;
    case nvinfer1::DataType::kUINT8: return Type::u8;
    default: return std::nullopt;
  }
}

std::string text_of(const Dims& dims) {
  std::string text = "(";
  for (int i = 0; i < dims.nbDims; ++i) text += (i != 0 ? ", " : "") + std::to_string(dims.d[i]);
  return text + ")";
}

bool is_open(const Dims& dims) {
  return std::any_of(dims.d, dims.d + std::max(dims.nbDims, 0), [](auto size) { return size < 0; });
}

// TensorRT-RTX records a graph by itself when it is told to, and knows when its kernels are the final ones; whether the
// headers have that is asked as tensorrt_runner.py asks the module.
template <class Engine, class = void>
struct RecordsItself : std::false_type {};
template <class Engine>
struct RecordsItself<Engine,
                     std::void_t<decltype(std::declval<Engine&>().createRuntimeConfig()->setCudaGraphStrategy({}))>>
    : std::true_type {};

template <class Engine>
nvinfer1::IExecutionContext* recording_context(Engine& engine) {
  if constexpr (RecordsItself<Engine>::value) {
    const auto config =
        std::unique_ptr<std::remove_pointer_t<decltype(engine.createRuntimeConfig())>>(engine.createRuntimeConfig());
    using Strategy = decltype(config->getCudaGraphStrategy());
    if (config == nullptr || !config->setCudaGraphStrategy(Strategy::kWHOLE_GRAPH_CAPTURE)) return nullptr;
    return engine.createExecutionContext(config.get());
  } else {
    return engine.createExecutionContext();
  }
}

// Memory of one tensor: pinned on the host, with its double on the GPU unless both see it.
struct Buffer {
  Handle host;
  GpuMemory gpu;
  GpuAddress address = 0;
  std::size_t size = 0;

  Buffer(const Cuda& cuda, std::size_t bytes)
      : host(cuda.host_memory(std::max<std::size_t>(bytes, 1), cuda.gpu().integrated)), size(bytes) {
    if (!cuda.gpu().integrated) gpu = cuda.gpu_memory(std::max<std::size_t>(bytes, 1));
    address = gpu ? gpu.get() : cuda.address_of(host.get());
  }
  void to_gpu(const Cuda& cuda, void* stream) const {
    if (gpu && size != 0) cuda.copy_to_gpu(address, host.get(), size, stream);
  }
  void to_host(const Cuda& cuda, void* stream) const {
    if (gpu && size != 0) cuda.copy_to_host(host.get(), address, size, stream);
  }
};

// What one frame in flight needs. A context of its own: then addresses never change, which a recorded graph needs, and
// the copies of one frame go on beside the kernels of the other. Given back from the last to the first.
struct Slot {
  Handle own_stream;
  void* stream = nullptr;
  std::array<Handle, 4> events;  // before and after: copies in, kernels, copies out
  std::vector<Buffer> inputs, outputs;
  std::unique_ptr<nvinfer1::IExecutionContext> context;
  Handle graph;
  bool running = false, measured = false;
  double enqueue_ms = 0;
};

class TensorRt final : public Backend {
 public:
  TensorRt(const std::string& path, const BackendOptions& options);
  ~TensorRt() override;
  TensorRt(const TensorRt&) = delete;
  TensorRt& operator=(const TensorRt&) = delete;

  const std::vector<TensorInfo>& inputs() const override { return inputs_; }
  const std::vector<TensorInfo>& outputs() const override { return outputs_; }
  void* input(int slot, std::size_t index) override { return ready(slot).inputs.at(index).host.get(); }
  const void* output(int slot, std::size_t index) override { return ready(slot).outputs.at(index).host.get(); }
  void submit(int slot) override;
  void wait(int slot) override;
  const std::string& about() const override { return about_; }
  bool times(int slot, GpuTimes& out) const override;

 private:
  TensorRtLibrary open_libraries(const BackendOptions& options);
  void load(const Plan& plan, bool host_code);
  void describe(const char* name);
  Dims frame_shape(const char* name) const;
  std::unique_ptr<nvinfer1::IExecutionContext> make_context() const;
  Slot& ready(int slot);
  Slot make_slot();
  void place(nvinfer1::IExecutionContext& context, TensorInfo& tensor, std::vector<Buffer>& buffers) const;
  void enqueue(Slot& slot) const;
  void queue(Slot& slot) const;
  void record(Slot& slot) const;
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(kFailed, path_ + ": " + what + " (" + last_words() + ")");
  }

  const std::string path_;
  const bool cuda_graph_;
  void* const callers_stream_;
  std::unique_ptr<Cuda> cuda_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::vector<std::pair<std::string, Dims>> open_shapes_;  // of the inputs whose sizes are to be said
  std::vector<TensorInfo> inputs_, outputs_;
  std::array<std::optional<Slot>, kSlots> slots_;
  std::string about_;
};

TensorRt::TensorRt(const std::string& path, const BackendOptions& options)
    : path_(path), cuda_graph_(options.cuda_graph), callers_stream_(options.stream) {
  const Plan plan = read_plan(path);
  if (plan.backend != kBackend)
    throw Error(kMissing, path + " is a plan of " + title_of(plan.backend) + ", and this module is for " +
                              title_of(kBackend) + ": build hiresvit's module for it, or take the .onnx graph");
  const TensorRtLibrary library = open_libraries(options);
  check_version(plan, library.version());
  check_gpu(plan, cuda_->gpu());
  const bool host_code = allow_host_code(plan, options.host_code);
  const Cuda::Current current(*cuda_);
  forget_words();
  runtime_ = library.runtime();
  try {
    load(plan, host_code);
    slots_[0] = make_slot();
  } catch (...) {
    slots_[0].reset(), engine_.reset(), runtime_.reset();  // with the GPU's context at hand
    throw;
  }
  about_ = std::string(title_of(kBackend)) + " " + library.version() + ", " + cuda_->gpu().name;
  if (const std::string warned = warnings(); !warned.empty()) about_ += "; it warns: " + warned;
}

TensorRtLibrary TensorRt::open_libraries(const BackendOptions& options) {
  try {
    cuda_ = std::make_unique<Cuda>(options.device);  // before TensorRT: that crashes where CUDA does not work
    return TensorRtLibrary(options.library);
  } catch (const Error& error) {
    throw Error(error.code, path_ + ": " + error.what());
  }
}

TensorRt::~TensorRt() {
  try {
    const Cuda::Current current(*cuda_);
    for (const auto& slot : slots_)
      if (slot && slot->running) cuda_->drain(slot->stream);
    for (auto& slot : slots_) slot.reset();
    engine_.reset(), runtime_.reset();
  } catch (const Error&) {  // the GPU is gone, and all that was on it
  }
}

void TensorRt::load(const Plan& plan, bool host_code) {
  if (host_code) runtime_->setEngineHostCodeAllowed(true);  // or a version-compatible plan is refused
  engine_.reset(runtime_->deserializeCudaEngine(plan.bytes.data(), plan.bytes.size()));
  if (engine_ == nullptr) {
    const std::string words = last_words();
    if (words.find("memory") != std::string::npos)
      throw Error(kFailed, path_ + ": " + words + "; close what else uses the GPU");
    throw Error(kDamaged, path_ + ": " + title_of(kBackend) + " cannot load it (" + words + "); build it again here");
  }
  for (int i = 0; i < engine_->getNbIOTensors(); ++i) describe(engine_->getIOTensorName(i));
}

// Throws Error (usage) for a tensor that cannot be fed by copying it.
void TensorRt::describe(const char* name) {
  const std::string who = path_ + ": '" + name + "' is ";
  if (engine_->getTensorLocation(name) == nvinfer1::TensorLocation::kHOST)
    throw Error(kUsage, who + "read by the host, as a shape; build it with fixed sizes");
  if (engine_->getTensorFormat(name) != nvinfer1::TensorFormat::kLINEAR)
    throw Error(kUsage, who + "not laid out plainly; build the plan with plain (LINEAR) inputs and outputs");
  const nvinfer1::DataType type = engine_->getTensorDataType(name);
  if (!type_of(type))
    throw Error(kUsage,
                who + name_of(type) + "; only uint8, int32, int64, float16 and float32 are taken: put a Cast there");
  const bool is_input = engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
  if (is_input && is_open(engine_->getTensorShape(name))) open_shapes_.emplace_back(name, frame_shape(name));
  (is_input ? inputs_ : outputs_).push_back({name, *type_of(type), {}, 0});
}

// Of a plan's shapes the one that it was tuned for, with a batch of one: a slot holds one frame.
Dims TensorRt::frame_shape(const char* name) const {
  using nvinfer1::OptProfileSelector;
  const Dims least = engine_->getProfileShape(name, 0, OptProfileSelector::kMIN);
  const Dims most = engine_->getProfileShape(name, 0, OptProfileSelector::kMAX);
  Dims shape = engine_->getProfileShape(name, 0, OptProfileSelector::kOPT);
  if (engine_->getTensorShape(name).d[0] < 0) shape.d[0] = 1;
  if (shape.nbDims < 1 || shape.d[0] < least.d[0])
    throw Error(kUsage, path_ + ": input '" + name + "' takes " + text_of(least) + " to " + text_of(most) +
                            ", and a frame is a batch of 1: build the plan with other --shapes");
  return shape;
}

std::unique_ptr<nvinfer1::IExecutionContext> TensorRt::make_context() const {
  std::unique_ptr<nvinfer1::IExecutionContext> context(cuda_graph_ ? recording_context(*engine_)
                                                                   : engine_->createExecutionContext());
  if (context == nullptr) fail("no memory or means to run it");
  for (const auto& [name, shape] : open_shapes_)
    if (!context->setInputShape(name.c_str(), shape))
      fail("TensorRT does not take '" + name + "' as " + text_of(shape));
  return context;
}

Slot TensorRt::make_slot() {
  Slot slot;
  if (callers_stream_ == nullptr) slot.own_stream = cuda_->stream();
  slot.stream = callers_stream_ != nullptr ? callers_stream_ : slot.own_stream.get();
  for (Handle& event : slot.events) event = cuda_->event();
  slot.context = make_context();
  for (TensorInfo& tensor : inputs_) place(*slot.context, tensor, slot.inputs);
  for (TensorInfo& tensor : outputs_) place(*slot.context, tensor, slot.outputs);
  return slot;
}

// Gives a tensor its memory, and says in it how large it is.
void TensorRt::place(nvinfer1::IExecutionContext& context, TensorInfo& tensor, std::vector<Buffer>& buffers) const {
  const Dims shape = context.getTensorShape(tensor.name.c_str());
  if (is_open(shape) || shape.nbDims < 0)
    fail("the shape of '" + tensor.name + "' depends on the data, and only fixed ones can be run");
  tensor.shape.assign(shape.d, shape.d + shape.nbDims);
  tensor.bytes = size_of(tensor.type);
  for (const std::int64_t size : tensor.shape) tensor.bytes *= static_cast<std::size_t>(size);
  buffers.emplace_back(*cuda_, tensor.bytes);
  if (!context.setTensorAddress(tensor.name.c_str(), reinterpret_cast<void*>(buffers.back().address)))
    fail("TensorRT does not take memory for '" + tensor.name + "'");
}

Slot& TensorRt::ready(int slot) {
  if (slot < 0 || slot >= kSlots) throw Error(kUsage, path_ + ": slot " + std::to_string(slot) + "; there are 0 and 1");
  auto& found = slots_[static_cast<std::size_t>(slot)];
  if (!found) {  // the second, which who runs one frame after the other never needs
    const Cuda::Current current(*cuda_);
    forget_words();
    found = make_slot();
  }
  return *found;
}

void TensorRt::submit(int index) {
  Slot& slot = ready(index);
  if (slot.running)
    throw Error(kUsage, path_ + ": slot " + std::to_string(index) + " has a frame in flight; wait for it first");
  const Cuda::Current current(*cuda_);
  forget_words();
  slot.measured = false;
  try {
    queue(slot);
    if (cuda_graph_ && !RecordsItself<nvinfer1::ICudaEngine>::value && !slot.graph) record(slot);
  } catch (...) {
    cuda_->drain(slot.stream);  // nothing is left in the queue, whatever happens
    throw;
  }
  slot.running = true;
}

void TensorRt::queue(Slot& slot) const {
  cuda_->record(slot.events[0].get(), slot.stream);
  for (const Buffer& buffer : slot.inputs) buffer.to_gpu(*cuda_, slot.stream);
  cuda_->record(slot.events[1].get(), slot.stream);
  const auto start = std::chrono::steady_clock::now();
  if (slot.graph)
    cuda_->launch(slot.graph.get(), slot.stream);
  else
    enqueue(slot);
  slot.enqueue_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  cuda_->record(slot.events[2].get(), slot.stream);
  for (const Buffer& buffer : slot.outputs) buffer.to_host(*cuda_, slot.stream);
  cuda_->record(slot.events[3].get(), slot.stream);
}

void TensorRt::enqueue(Slot& slot) const {
  if (!slot.context->enqueueV3(static_cast<cudaStream_t>(slot.stream))) fail("TensorRT failed on this input");
}

// Records the kernels, which have run once: TensorRT puts some work off until then.
void TensorRt::record(Slot& slot) const {
  cuda_->wait_stream(slot.stream);
  try {
    cuda_->begin_capture(slot.stream);
    try {
      enqueue(slot);
    } catch (...) {
      cuda_->drop_capture(slot.stream);  // the stream must not go on recording
      throw;
    }
    slot.graph = cuda_->end_capture(slot.stream);
  } catch (const Error& error) {
    throw Error(error.code, std::string(error.what()) + "; open the plan without a CUDA graph");
  }
}

void TensorRt::wait(int index) {
  Slot& slot = ready(index);
  if (!slot.running)
    throw Error(kUsage, path_ + ": slot " + std::to_string(index) + " has no frame in flight; submit one first");
  const Cuda::Current current(*cuda_);
  slot.running = false;
  try {
    cuda_->wait_event(slot.events[3].get());
  } catch (...) {
    cuda_->drain(slot.stream);
    throw;
  }
  slot.measured = true;
}

bool TensorRt::times(int index, GpuTimes& out) const {
  const auto& slot = slots_.at(static_cast<std::size_t>(index));
  if (!slot || !slot->measured) return false;
  const Cuda::Current current(*cuda_);
  const auto between = [&](std::size_t at) {
    return cuda_->elapsed_ms(slot->events[at].get(), slot->events[at + 1].get());
  };
  out = {slot->enqueue_ms, between(0), between(1), between(2)};
  return true;
}

}  // namespace
}  // namespace hiresvit

extern "C" __attribute__((visibility("default"))) int hiresvit_open_tensorrt(const char* plan,
                                                                             const hiresvit::BackendOptions* options,
                                                                             hiresvit::Backend** out, char* error,
                                                                             std::size_t size) {
  const auto refuse = [&](int code, const char* text) {
    std::snprintf(error, size, "%s", text);
    return code;
  };
  try {
    *out = std::make_unique<hiresvit::TensorRt>(plan, *options).release();
    return 0;
  } catch (const hiresvit::Error& refused) {
    return refuse(refused.code, refused.what());
  } catch (const std::exception& refused) {
    return refuse(hiresvit::kFailed, refused.what());
  }
}
