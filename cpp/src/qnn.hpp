// Qualcomm's provider for ONNX Runtime, a plug-in that the user installs: sessions of a compiled context on the HTP.
#pragma once

#include <onnxruntime/onnxruntime_c_api.h>

#include <string>

#include "backend.hpp"
#include "context.hpp"

namespace hiresvit {

#if defined(__x86_64__)
constexpr bool kHtpEmulated = true;  // there is no HTP: what answers is Qualcomm's emulator
#else
constexpr bool kHtpEmulated = false;
#endif

// Registers the plug-in, once in a process, and appends it to a session's options; nothing is left to the CPU.
// `version` is ONNX Runtime's. Throws Error (missing) for a library that is missing or too old, and where no HTP is.
void append_qnn(const OrtApi& api, const std::string& version, OrtEnv* env, OrtSessionOptions* settings,
                const BackendOptions& options, const Context& context);

// Throws Error unless a session of a context opened: missing where the HTP does not, damaged for the context.
void check_context(const OrtApi& api, OrtStatus* status, const std::string& path, const Context& context);

}  // namespace hiresvit
