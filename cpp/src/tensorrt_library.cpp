#include "tensorrt_library.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "error.hpp"
#include "library.hpp"
#include "plan.hpp"

namespace hiresvit {
namespace {

#if defined(TRT_MAJOR_RTX)
constexpr int kMajorVersion = TRT_MAJOR_RTX;
#elif defined(HIRESVIT_TENSORRT_RTX)
constexpr int kMajorVersion = 1;
#else
constexpr int kMajorVersion = NV_TENSORRT_MAJOR;
#endif

std::string default_name() {
#ifdef HIRESVIT_TENSORRT_RTX
  return "libtensorrt_rtx.so." + std::to_string(kMajorVersion);
#else
  return "libnvinfer.so." + std::to_string(kMajorVersion);
#endif
}

// Keeps the latest error and the first warnings in memory that is there already: it is called in the middle of a frame.
class Log final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, nvinfer1::AsciiChar const* message) noexcept override {
    if (message == nullptr || severity > Severity::kWARNING) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (severity == Severity::kWARNING)
      append(warnings_, message);
    else
      errors_[0] = '\0', append(errors_, message);
  }
  void forget() noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    errors_[0] = warnings_[0] = '\0';
  }
  std::string error() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return errors_[0] != '\0' ? errors_ : "it gives no reason";
  }
  std::string warnings() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return warnings_;
  }

 private:
  static constexpr std::size_t kMost = 2000;

  // As one line: white space and control characters are one blank.
  static void append(char* text, const char* more) noexcept {
    std::size_t at = std::strlen(text);
    if (at != 0 && at + 2 < kMost) text[at++] = ';', text[at++] = ' ';
    bool blank = true;
    for (; *more != '\0' && at + 1 < kMost; ++more) {
      const bool is_blank = static_cast<unsigned char>(*more) <= ' ';
      if (!is_blank)
        text[at++] = *more;
      else if (!blank)
        text[at++] = ' ';
      blank = is_blank;
    }
    while (at != 0 && text[at - 1] == ' ') --at;
    text[at] = '\0';
  }

  std::mutex mutex_;
  char errors_[kMost] = "";
  char warnings_[kMost] = "";
};

Log& the_log() {
  static Log* const log = new Log;  // never gone: TensorRT's own threads may speak at the process's end
  return *log;
}

template <class Call>
Call symbol(const std::string& path, const char* name) {
  return reinterpret_cast<Call>(library_symbol(path, name, title_of(kBackend),
                                               "install it, or name its library as the option library or in"
                                               " HIRESVIT_TENSORRT; or take the .onnx graph"));
}

}  // namespace

TensorRtLibrary::TensorRtLibrary(const std::string& named)
    : path_(first_named(named, "HIRESVIT_TENSORRT", default_name())) {
  using Number = std::int32_t (*)();
  const int major = symbol<Number>(path_, "getInferLibMajorVersion")();
  version_ = std::to_string(major);
  for (const char* part : {"getInferLibMinorVersion", "getInferLibPatchVersion", "getInferLibBuildVersion"})
    version_ += "." + std::to_string(symbol<Number>(path_, part)());
  if (major != kMajorVersion)
    throw Error(kMissing, path_ + " is version " + version_ + ", and this module was compiled for " +
                              title_of(kBackend) + " " + std::to_string(kMajorVersion) +
                              ": compile it against that version's NvInfer.h, or name another library");
}

std::unique_ptr<nvinfer1::IRuntime> TensorRtLibrary::runtime() const {
  using Create = void* (*)(void*, std::int32_t);
  const auto create = symbol<Create>(path_, "createInferRuntime_INTERNAL");
  std::unique_ptr<nvinfer1::IRuntime> made(
      static_cast<nvinfer1::IRuntime*>(create(static_cast<nvinfer1::ILogger*>(&the_log()), NV_TENSORRT_VERSION)));
  if (made == nullptr)
    throw Error(kFailed,
                std::string(title_of(kBackend)) + " " + version_ + " does not start here (" + last_words() + ")");
  return made;
}

void forget_words() noexcept { the_log().forget(); }

std::string last_words() { return the_log().error(); }

std::string warnings() { return the_log().warnings(); }

}  // namespace hiresvit
