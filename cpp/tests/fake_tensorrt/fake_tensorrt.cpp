#include "fake_tensorrt.hpp"

#include <cstring>

#include "fake_cuda.hpp"

namespace fake_tensorrt {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::TensorIOMode;
using Severity = nvinfer1::ILogger::Severity;
using fake_cuda::misuse;

nvinfer1::ILogger* the_log = nullptr;  // TensorRT keeps the first that it gets

State& state() { return *fake_tensorrt_state(); }

void say(Severity severity, const std::string& words) { the_log->log(severity, words.c_str()); }

bool refuses(const std::string& call) {
  if (state().refuse.count(call) == 0) return false;
  say(Severity::kINFO, "an aside"), say(Severity::kERROR, state().words), say(Severity::kINFO, "another");
  return true;
}

const Tensor& find(const char* name) {
  for (const Tensor& tensor : state().tensors)
    if (tensor.name == name) return tensor;
  misuse(std::string("no tensor ") + name);
}

bool is_open(const Shape& shape) {
  for (const auto size : shape)
    if (size < 0) return true;
  return false;
}

Dims dims_of(const Shape& shape) {
  Dims dims;
  for (const auto size : shape) dims.d[dims.nbDims++] = size;
  return dims;
}

std::size_t bytes_of(DataType type) {
  switch (type) {
    case DataType::kINT64: return 8;
    case DataType::kFLOAT:
    case DataType::kINT32: return 4;
    case DataType::kHALF: return 2;
    default: return 1;
  }
}

// Counts how many of its kind are alive.
struct Counted {
  explicit Counted(const char* kind_) : kind(kind_) { ++state().alive[kind]; }
  ~Counted() { --state().alive[kind]; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  const char* kind;
};

class Context final : public nvinfer1::IExecutionContext {
 public:
  explicit Context(int& siblings) : siblings_(siblings) { ++siblings_; }
  ~Context() noexcept override {
    --siblings_;
    if (fake_cuda::held()["pushed"] == 0) misuse("a context of TensorRT is deleted without CUDA's");
  }

  bool setInputShape(char const* name, Dims const& dims) noexcept override {
    if (refuses("setInputShape")) return false;
    const Tensor& tensor = find(name);
    if (!is_open(tensor.shape)) misuse("the shape of a fixed input is set");
    if (dims.nbDims != static_cast<int>(tensor.shape.size())) misuse("another number of sizes");
    for (std::size_t i = 0; i < tensor.shape.size(); ++i)
      if (dims.d[i] < tensor.least[i] || dims.d[i] > tensor.most[i]) misuse("a shape outside the profile");
    shapes_[name] = Shape(dims.d, dims.d + dims.nbDims);
    ++state().shapes_set;
    return true;
  }

  Dims getTensorShape(char const* name) const noexcept override {
    const Tensor& tensor = find(name);
    if (!is_open(tensor.shape)) return dims_of(tensor.shape);
    if (state().refuse.count("data dependent") != 0 && tensor.mode == TensorIOMode::kOUTPUT)
      return dims_of(tensor.shape);
    for (const Tensor& input : state().tensors) {  // an output has its first input's shape
      const bool wanted = tensor.mode == TensorIOMode::kINPUT ? input.name == name : input.mode == TensorIOMode::kINPUT;
      const auto set = shapes_.find(input.name);
      if (wanted) return dims_of(set == shapes_.end() ? input.shape : set->second);
    }
    misuse("no input");
  }

  bool setTensorAddress(char const* name, void* data) noexcept override {
    if (refuses("setTensorAddress")) return false;
    addresses_[name] = fake_cuda::at(data, 1);
    return true;
  }

  bool enqueueV3(cudaStream_t stream) noexcept override {
    const fake_cuda::Inside inside;
    if (refuses("enqueueV3")) return false;
    const bool recording = fake_cuda::is_recording(stream);
    if (recording && !warm_) misuse("recorded before its first run");
    if (recording && refuses("capture")) return false;
    warm_ = true;
    ++state().enqueued;
    Memory memory;
    std::vector<std::size_t> sizes;
    for (const Tensor& tensor : state().tensors) {
      const Dims dims = getTensorShape(tensor.name.c_str());
      std::size_t elements = 1;
      for (int i = 0; i < dims.nbDims; ++i) elements *= static_cast<std::size_t>(dims.d[i]);
      if (addresses_.count(tensor.name) == 0) misuse("an address is missing");
      memory[tensor.name] = {addresses_[tensor.name], elements};
      sizes.push_back(elements * bytes_of(tensor.type));
    }
    fake_cuda::queue(stream, [memory, sizes] {
      std::size_t i = 0;
      for (const Tensor& tensor : state().tensors) fake_cuda::at(memory.at(tensor.name).first, sizes[i++]);
      state().compute(memory);
      return kRunMs;
    });
    return true;
  }

 private:
  std::map<std::string, Shape> shapes_;
  std::map<std::string, void*> addresses_;
  bool warm_ = false;
  int& siblings_;
  Counted counted_{"context"};
};

#ifdef FAKE_TENSORRT_RTX
class Config final : public nvinfer1::IRuntimeConfig {
 public:
  bool setCudaGraphStrategy(nvinfer1::CudaGraphStrategy strategy) noexcept override {
    if (refuses("setCudaGraphStrategy")) return false;
    strategy_ = strategy;
    return true;
  }
  nvinfer1::CudaGraphStrategy getCudaGraphStrategy() const noexcept override { return strategy_; }

 private:
  nvinfer1::CudaGraphStrategy strategy_ = nvinfer1::CudaGraphStrategy::kDISABLED;
  Counted counted_{"config"};
};
#endif

class Engine final : public nvinfer1::ICudaEngine {
 public:
  explicit Engine(int& siblings) : siblings_(siblings) { ++siblings_; }
  ~Engine() noexcept override {
    --siblings_;
    if (contexts_ != 0) misuse("an engine is deleted before its contexts");
  }
  std::int32_t getNbIOTensors() const noexcept override { return static_cast<std::int32_t>(state().tensors.size()); }
  char const* getIOTensorName(std::int32_t index) const noexcept override {
    return state().tensors.at(static_cast<std::size_t>(index)).name.c_str();
  }
  TensorIOMode getTensorIOMode(char const* name) const noexcept override { return find(name).mode; }
  DataType getTensorDataType(char const* name) const noexcept override { return find(name).type; }
  nvinfer1::TensorLocation getTensorLocation(char const* name) const noexcept override { return find(name).location; }
  nvinfer1::TensorFormat getTensorFormat(char const* name) const noexcept override { return find(name).format; }
  Dims getTensorShape(char const* name) const noexcept override { return dims_of(find(name).shape); }
  Dims getProfileShape(char const* name, std::int32_t profile,
                       nvinfer1::OptProfileSelector select) const noexcept override {
    const Tensor& tensor = find(name);
    if (profile != 0 || !is_open(tensor.shape)) misuse("asked for a profile of what has none");
    if (select == nvinfer1::OptProfileSelector::kOPT) return dims_of(tensor.best);
    return dims_of(select == nvinfer1::OptProfileSelector::kMIN ? tensor.least : tensor.most);
  }
  nvinfer1::IExecutionContext* createExecutionContext() noexcept override { return make(0); }
#ifdef FAKE_TENSORRT_RTX
  nvinfer1::IRuntimeConfig* createRuntimeConfig() noexcept override {
    return refuses("createRuntimeConfig") ? nullptr : new Config;
  }
  nvinfer1::IExecutionContext* createExecutionContext(nvinfer1::IRuntimeConfig* config) noexcept override {
    return make(static_cast<int>(config->getCudaGraphStrategy()));
  }
#endif

 private:
  nvinfer1::IExecutionContext* make(int strategy) {
    if (refuses("createExecutionContext")) return nullptr;
    if (state().contexts == 1 && refuses("second context")) return nullptr;
    ++state().contexts;
    state().strategy = strategy;
    return new Context(contexts_);
  }
  int contexts_ = 0;
  int& siblings_;
  Counted counted_{"engine"};
};

class Runtime final : public nvinfer1::IRuntime {
 public:
  ~Runtime() noexcept override {
    if (engines_ != 0) misuse("a runtime is deleted before its engine");
  }
  void setEngineHostCodeAllowed(bool allowed) noexcept override { state().host_code = allowed; }
  nvinfer1::ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept override {
    const std::string plan(static_cast<const char*>(blob), size);
    if (!state().warning.empty()) say(Severity::kWARNING, state().warning);
    if (plan.find(state().good_plan) == std::string::npos) {
      say(Severity::kERROR, "IRuntime::deserializeCudaEngine: Error Code 1: magic tag does not match");
      return nullptr;
    }
    return refuses("deserializeCudaEngine") ? nullptr : new Engine(engines_);
  }

 private:
  int engines_ = 0;
  Counted counted_{"runtime"};
};

void double_plus_one(const Memory& memory) {
  const auto& [x, elements] = memory.at("x");
  for (std::size_t i = 0; i < elements; ++i)
    static_cast<float*>(memory.at("y").first)[i] = 2 * static_cast<const float*>(x)[i] + 1;
}

}  // namespace
}  // namespace fake_tensorrt

using namespace fake_tensorrt;

extern "C" {

State* fake_tensorrt_state() {
  static State state;
  return &state;
}

void fake_tensorrt_reset() {
  for (const auto& [kind, count] : state().alive)
    if (count != 0) misuse("a " + kind + " is left");
  state() = State{};
  state().tensors = {{"x", TensorIOMode::kINPUT, {2, 3}}, {"y", TensorIOMode::kOUTPUT, {2, 3}}};
  state().compute = double_plus_one;
  state().good_plan = "y = 2 x + 1";
#ifdef FAKE_TENSORRT_RTX
  const std::int32_t version[] = {1, 7, 1, 116};
#else
  const std::int32_t version[] = {10, 3, 0, 30};
#endif
  std::memcpy(state().version, version, sizeof version);
}

std::int32_t getInferLibMajorVersion() { return state().version[0]; }
std::int32_t getInferLibMinorVersion() { return state().version[1]; }
std::int32_t getInferLibPatchVersion() { return state().version[2]; }
std::int32_t getInferLibBuildVersion() { return state().version[3]; }

void* createInferRuntime_INTERNAL(void* log, std::int32_t version) {
  if (version != NV_TENSORRT_VERSION) misuse("another version of the header");
  if (fake_cuda::held()["pushed"] == 0) misuse("TensorRT is started without a context of CUDA");
  the_log = the_log != nullptr ? the_log : static_cast<nvinfer1::ILogger*>(log);
  if (the_log != log) misuse("a second log is ignored, and the first must live on");
  return refuses("createInferRuntime") ? nullptr : static_cast<nvinfer1::IRuntime*>(new Runtime);
}
}
