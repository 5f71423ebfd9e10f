// What runs a graph: ONNX Runtime or TensorRT, opened when the program runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace hiresvit {

enum class Type { u8, i32, i64, f16, f32 };

struct TensorInfo {
  std::string name;
  Type type;
  std::vector<std::int64_t> shape;
  std::size_t bytes;
};

// `library` is the runtime's own shared library (empty: its environment variable, else the loader's search), `threads`
// how many of the CPU's threads it may take (0: as it likes). `provider` is Qualcomm's plug-in for ONNX Runtime (empty:
// HIRESVIT_QNN, else the loader's search) and `soc_model` the chip that a context must be for (0: any). The rest is of
// GPUs: `stream` is the caller's cudaStream_t, and `host_code` allows a plan that carries code for the host.
struct BackendOptions {
  std::string library;
  int threads = 0;
  std::string provider;
  int soc_model = 0;
  bool cuda_graph = false;
  int device = 0;
  void* stream = nullptr;
  bool host_code = false;
};

// trtexec's words, in milliseconds: the host's time of the enqueueing, and the GPU's of its parts.
struct GpuTimes {
  double enqueue = 0, h2d = 0, compute = 0, d2h = 0;
};

// A graph that is loaded, with two slots, so that a frame can be prepared while another one runs. One thread at a time
// calls it. Whatever fails raises Error (error.hpp): on opening, in submit or in wait.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual const std::vector<TensorInfo>& inputs() const = 0;
  virtual const std::vector<TensorInfo>& outputs() const = 0;
  // Memory of the host, made once; valid as long as the backend. A slot's may be touched from its wait to its submit.
  virtual void* input(int slot, std::size_t index) = 0;
  virtual const void* output(int slot, std::size_t index) = 0;
  virtual void submit(int slot) = 0;  // returns at once where the backend can
  virtual void wait(int slot) = 0;
  virtual const std::string& about() const = 0;  // "ONNX Runtime 1.31.1, CPU"
  virtual bool emulated() const { return false; }  // whether its times say nothing of the device it stands for
  // What a slot's last frame took, after its wait; false where no GPU ran it or nobody measured.
  virtual bool times(int slot, GpuTimes& out) const {
    static_cast<void>(slot), static_cast<void>(out);
    return false;
  }
};

std::unique_ptr<Backend> open_onnxruntime(const std::string& graph, const BackendOptions&);

struct Context;
// A compiled context on Qualcomm's HTP, through ONNX Runtime; `context` is what `path` says of itself.
std::unique_ptr<Backend> open_context(const std::string& path, const Context& context, const BackendOptions&);

// Checks the plan and opens the module for it, libhiresvit_tensorrt.so or libhiresvit_tensorrt_rtx.so, which lies beside
// this library or is named by HIRESVIT_TENSORRT_MODULE.
std::unique_ptr<Backend> open_tensorrt(const std::string& plan, const BackendOptions&);

}  // namespace hiresvit

// The one symbol of that module. It is of its own because NvInfer.h's classes are of one major version. Returns 0 and a
// backend that the caller deletes, else an exit code of hiresvit/errors.py and one line in `error` of `size` bytes,
// with its zero. Raises nothing.
extern "C" int hiresvit_open_tensorrt(const char* plan, const hiresvit::BackendOptions* options,
                                      hiresvit::Backend** out, char* error, std::size_t size);
