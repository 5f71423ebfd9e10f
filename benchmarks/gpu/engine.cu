// A TensorRT for benchmarks/gpu_check.sh, whose only network is y = 2 x + 1 on a real GPU: what the backend for
// TensorRT asks of CUDA is then asked of a driver. Its plans say "elements N rounds N" behind their header; a round
// more is the same answer later. Compiled against the header of the tests, by nvcc, as libnvinfer.so.10.
#include <NvInfer.h>

#include <cstdio>
#include <cstring>
#include <string>

namespace {

using namespace nvinfer1;

__global__ void twice_and_one(float* y, const float* x, long elements, int rounds) {
  const long at = static_cast<long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= elements) return;
  float value = x[at];
  for (int i = 1; i < rounds; ++i) value = fmaf(value, 1.0F, value * 0.0F);  // not finite is not its to say
  y[at] = 2 * value + 1;
}

struct Network {
  long elements = 0;
  int rounds = 1;
};

class Context final : public IExecutionContext {
 public:
  explicit Context(Network network) : network_(network) {}
  bool setInputShape(char const*, Dims const&) noexcept override { return false; }
  Dims getTensorShape(char const*) const noexcept override { return shape(); }
  bool setTensorAddress(char const* name, void* data) noexcept override {
    (name[0] == 'x' ? x_ : y_) = static_cast<float*>(data);
    return true;
  }
  bool enqueueV3(cudaStream_t stream) noexcept override {
    const auto blocks = static_cast<unsigned>((network_.elements + 255) / 256);
    twice_and_one<<<blocks, 256, 0, stream>>>(y_, x_, network_.elements, network_.rounds);
    return cudaGetLastError() == cudaSuccess;
  }

 private:
  Dims shape() const {
    Dims dims;
    dims.nbDims = 1, dims.d[0] = network_.elements;
    return dims;
  }
  const Network network_;
  float *x_ = nullptr, *y_ = nullptr;
};

class Engine final : public ICudaEngine {
 public:
  explicit Engine(Network network) : network_(network) {}
  std::int32_t getNbIOTensors() const noexcept override { return 2; }
  char const* getIOTensorName(std::int32_t index) const noexcept override { return index == 0 ? "x" : "y"; }
  TensorIOMode getTensorIOMode(char const* name) const noexcept override {
    return name[0] == 'x' ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
  }
  DataType getTensorDataType(char const*) const noexcept override { return DataType::kFLOAT; }
  TensorLocation getTensorLocation(char const*) const noexcept override { return TensorLocation::kDEVICE; }
  TensorFormat getTensorFormat(char const*) const noexcept override { return TensorFormat::kLINEAR; }
  Dims getTensorShape(char const*) const noexcept override {
    Dims dims;
    dims.nbDims = 1, dims.d[0] = network_.elements;
    return dims;
  }
  Dims getProfileShape(char const* name, std::int32_t, OptProfileSelector) const noexcept override {
    return getTensorShape(name);
  }
  IExecutionContext* createExecutionContext() noexcept override { return new Context(network_); }

 private:
  const Network network_;
};

class Runtime final : public IRuntime {
 public:
  explicit Runtime(ILogger* log) : log_(log) {}
  void setEngineHostCodeAllowed(bool) noexcept override {}
  ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept override {
    const std::string text(static_cast<const char*>(blob) + 28, size - 28);
    Network network;
    if (std::sscanf(text.c_str(), "elements %ld rounds %d", &network.elements, &network.rounds) == 2)
      return new Engine(network);
    log_->log(ILogger::Severity::kERROR, "no such network");
    return nullptr;
  }

 private:
  ILogger* log_;
};

}  // namespace

extern "C" {
std::int32_t getInferLibMajorVersion() { return 10; }
std::int32_t getInferLibMinorVersion() { return 3; }
std::int32_t getInferLibPatchVersion() { return 0; }
std::int32_t getInferLibBuildVersion() { return 30; }
void* createInferRuntime_INTERNAL(void* log, std::int32_t) {
  return static_cast<IRuntime*>(new Runtime(static_cast<ILogger*>(log)));
}
}
