// As hiresvit/runtime/_qnn_child.py does it, through the C API.
#include "qnn.hpp"

#include <dlfcn.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "error.hpp"
#include "library.hpp"

namespace hiresvit {
namespace {

std::string taken(const OrtApi& api, OrtStatus* status) {
  const std::string all = api.GetErrorMessage(status);
  api.ReleaseStatus(status);
  return shown(all.substr(0, all.find('\n')), 400);
}

}  // namespace

void check_context(const OrtApi& api, OrtStatus* status, const std::string& path, const Context& context) {
  if (status == nullptr) return;
  const std::string said = taken(api, status);
  // A provider whose libraries do not open takes no node, and what is left to the CPU is refused.
  if (said.find("fallback to CPU EP") != std::string::npos) {
    throw Error(kMissing, "Qualcomm's libraries do not open the HTP: libQnnHtp.so and what it needs must lie beside the"
                          " plug-in, and on a device the folder of its Skel library in ADSP_LIBRARY_PATH");
  }
  throw Error(kDamaged, path + " is damaged, or its QAIRT " + context.qairt +
                            " is newer than this device's: Qualcomm's library does not load it; copy both files again,"
                            " or build it again (" + said + ")");
}

#if ORT_API_VERSION >= 22
namespace {

constexpr unsigned kLeast = 24;  // of 1.x: what onnxruntime-qnn asks for
constexpr const char* kProvider = "QNNExecutionProvider";
constexpr const char* kLibrary = "libonnxruntime_providers_qnn.so";
constexpr const char* kAdvice =
    "give the path of libonnxruntime_providers_qnn.so, as the option provider or in HIRESVIT_QNN: pip's package"
    " onnxruntime-qnn has one";

void check(const OrtApi& api, OrtStatus* status, int code, const std::string& what) {
  if (status != nullptr) throw Error(code, what + " (" + taken(api, status) + ")");
}

// The HTP, which the emulator lists as a CPU; null where there is none.
const OrtEpDevice* find_device(const OrtApi& api, OrtEnv* env) {
  const OrtEpDevice* const* devices = nullptr;
  std::size_t count = 0;
  check(api, api.GetEpDevices(env, &devices, &count), kFailed, "ONNX Runtime lists no devices");
  const OrtHardwareDeviceType wanted = kHtpEmulated ? OrtHardwareDeviceType_CPU : OrtHardwareDeviceType_NPU;
  for (std::size_t index = 0; index < count; ++index) {
    if (std::string(api.EpDevice_EpName(devices[index])) == kProvider &&
        api.HardwareDevice_Type(api.EpDevice_Device(devices[index])) == wanted) {
      return devices[index];
    }
  }
  return nullptr;
}

// Where the loader finds the plug-in: ONNX Runtime would look for a name without a folder in its own.
std::string plugin_path(const std::string& asked) {
  void* const symbol = library_symbol(asked, "CreateEpFactories", "Qualcomm's provider for ONNX Runtime", kAdvice);
  Dl_info info{};
  return dladdr(symbol, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : asked;
}

const OrtEpDevice* register_provider(const OrtApi& api, OrtEnv* env, const std::string& path) {
  static std::mutex mutex;  // of two engines that open at once, one registers
  const std::lock_guard<std::mutex> lock(mutex);
  if (const OrtEpDevice* const device = find_device(api, env)) return device;
  char whole[PATH_MAX];
  const std::string found = plugin_path(path);
  check(api,
        api.RegisterExecutionProviderLibrary(env, kProvider, realpath(found.c_str(), whole) ? whole : found.c_str()),
        kMissing, "ONNX Runtime does not take " + shown(found, 1000));
  const OrtEpDevice* const device = find_device(api, env);
  if (device == nullptr) {
    throw Error(kMissing, "no HTP is here: a context runs on a device that has Qualcomm's, and emulated on x86-64");
  }
  return device;
}

}  // namespace

void append_qnn(const OrtApi& api, const std::string& version, OrtEnv* env, OrtSessionOptions* settings,
                const BackendOptions& options, const Context& context) {
  unsigned major = 0, minor = 0;
  if (std::sscanf(version.c_str(), "%u.%u", &major, &minor) != 2 || (major == 1 && minor < kLeast)) {
    throw Error(kMissing, "Qualcomm's provider needs ONNX Runtime 1." + std::to_string(kLeast) + " or newer, this is " +
                              version + ": name another as the option library or in HIRESVIT_ONNXRUNTIME");
  }
  const std::string path = first_named(options.provider, "HIRESVIT_QNN", kLibrary);
  const OrtEpDevice* const device = register_provider(api, env, path);
  const std::string failed = "ONNX Runtime does not take Qualcomm's provider";
  check(api, api.AddSessionConfigEntry(settings, "session.disable_cpu_ep_fallback", "1"), kFailed, failed);
  std::vector<const char*> keys{"backend_type"}, values{"htp"};
  const std::string chip = std::to_string(context.soc_model);
  if (kHtpEmulated) keys.push_back("soc_model"), values.push_back(chip.c_str());  // a device is its own
  check(api,
        api.SessionOptionsAppendExecutionProvider_V2(settings, env, &device, 1, keys.data(), values.data(), keys.size()),
        kFailed, failed);
}

#else

void append_qnn(const OrtApi&, const std::string&, OrtEnv*, OrtSessionOptions*, const BackendOptions&, const Context&) {
  throw Error(kMissing, "this hiresvit was compiled with the headers of ONNX Runtime 1." +
                            std::to_string(ORT_API_VERSION) +
                            ", which know no plug-ins: compile it with those of 1.22 or newer to run a context");
}

#endif

}  // namespace hiresvit
