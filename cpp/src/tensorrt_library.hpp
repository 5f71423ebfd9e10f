// TensorRT's library, opened when the program runs, and what it says. Compiled against one major version of NvInfer.h.
#pragma once

#include <NvInfer.h>

#include <memory>
#include <string>

// TensorRT-RTX's SDK says so itself; with the headers of TensorRT 11, which fit its library too, CMake does.
#if defined(TRT_MAJOR_RTX) && !defined(HIRESVIT_TENSORRT_RTX)
#define HIRESVIT_TENSORRT_RTX 1
#endif

namespace hiresvit {

#ifdef HIRESVIT_TENSORRT_RTX
constexpr const char* kBackend = "tensorrt_rtx";
#else
constexpr const char* kBackend = "tensorrt";
#endif

// Opens the library that is named, else the one in HIRESVIT_TENSORRT, else by its name. Throws Error: missing where
// there is none, or one of another major version than this code was compiled for.
class TensorRtLibrary {
 public:
  explicit TensorRtLibrary(const std::string& named);
  const std::string& version() const { return version_; }  // "10.3.0.30"
  // Its first call needs CUDA to work: without, TensorRT gives a pointer to nothing. Throws Error (failed).
  std::unique_ptr<nvinfer1::IRuntime> runtime() const;

 private:
  std::string path_;
  std::string version_;
};

// What TensorRT said last: its latest error, or that it gives no reason; all warnings as one line, or nothing. One log
// for a process, since TensorRT keeps the first that it gets; `forget_words` starts anew and allocates nothing.
void forget_words() noexcept;
std::string last_words();
std::string warnings();

}  // namespace hiresvit
