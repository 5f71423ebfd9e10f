// The names of TensorRT's public interface that cpp/src/tensorrt*.cpp calls, and no others, so that these sources are
// compiled and run where NVIDIA's headers are not. Numbers are those of the real enums. With FAKE_TENSORRT_RTX it is
// TensorRT-RTX's, which records graphs by itself.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef FAKE_TENSORRT_RTX
#define TRT_MAJOR_RTX 1
#define NV_TENSORRT_MAJOR 1
#define NV_TENSORRT_VERSION 10701
#else
#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_VERSION 100300
#endif

struct CUstream_st;
using cudaStream_t = CUstream_st*;

namespace nvinfer1 {

using AsciiChar = char;

enum class DataType : std::int32_t { kFLOAT, kHALF, kINT8, kINT32, kBOOL, kUINT8, kFP8, kBF16, kINT64, kINT4, kFP4 };
enum class TensorLocation : std::int32_t { kDEVICE, kHOST };
enum class TensorFormat : std::int32_t { kLINEAR = 0, kCHW16 = 4 };
enum class TensorIOMode : std::int32_t { kNONE, kINPUT, kOUTPUT };
enum class OptProfileSelector : std::int32_t { kMIN, kOPT, kMAX };

struct Dims {
  static constexpr std::int32_t MAX_DIMS = 8;
  std::int32_t nbDims = 0;
  std::int64_t d[MAX_DIMS] = {};
};

class ILogger {
 public:
  enum class Severity : std::int32_t { kINTERNAL_ERROR, kERROR, kWARNING, kINFO, kVERBOSE };
  virtual void log(Severity severity, AsciiChar const* msg) noexcept = 0;
  virtual ~ILogger() = default;
};

class IExecutionContext {
 public:
  virtual ~IExecutionContext() noexcept = default;
  virtual bool setInputShape(char const* name, Dims const& dims) noexcept = 0;
  virtual Dims getTensorShape(char const* name) const noexcept = 0;
  virtual bool setTensorAddress(char const* name, void* data) noexcept = 0;
  virtual bool enqueueV3(cudaStream_t stream) noexcept = 0;
};

#ifdef FAKE_TENSORRT_RTX
enum class CudaGraphStrategy : std::int32_t { kDISABLED, kWHOLE_GRAPH_CAPTURE };

class IRuntimeConfig {
 public:
  virtual ~IRuntimeConfig() noexcept = default;
  virtual bool setCudaGraphStrategy(CudaGraphStrategy strategy) noexcept = 0;
  virtual CudaGraphStrategy getCudaGraphStrategy() const noexcept = 0;
};
#endif

class ICudaEngine {
 public:
  virtual ~ICudaEngine() noexcept = default;
  virtual std::int32_t getNbIOTensors() const noexcept = 0;
  virtual char const* getIOTensorName(std::int32_t index) const noexcept = 0;
  virtual TensorIOMode getTensorIOMode(char const* name) const noexcept = 0;
  virtual DataType getTensorDataType(char const* name) const noexcept = 0;
  virtual TensorLocation getTensorLocation(char const* name) const noexcept = 0;
  virtual TensorFormat getTensorFormat(char const* name) const noexcept = 0;
  virtual Dims getTensorShape(char const* name) const noexcept = 0;
  virtual Dims getProfileShape(char const* name, std::int32_t profile, OptProfileSelector select) const noexcept = 0;
  virtual IExecutionContext* createExecutionContext() noexcept = 0;
#ifdef FAKE_TENSORRT_RTX
  virtual IRuntimeConfig* createRuntimeConfig() noexcept = 0;
  virtual IExecutionContext* createExecutionContext(IRuntimeConfig* config) noexcept = 0;
#endif
};

class IRuntime {
 public:
  virtual ~IRuntime() noexcept = default;
  virtual void setEngineHostCodeAllowed(bool allowed) noexcept = 0;
  virtual ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept = 0;
};

}  // namespace nvinfer1
