// A plan of TensorRT and the file beside it, and why it cannot run here: hiresvit/device/plan.py and
// runtime/preflight.py.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cuda.hpp"

namespace hiresvit {

// NAME.plan.json, of which a runner needs this much.
struct Sidecar {
  std::string backend;             // "tensorrt", "tensorrt_rtx"
  std::string version;             // "10.3.0.30"
  std::string platform;            // "Linux aarch64"
  std::string compute_capability;  // "8.7", "8.6, 8.9", "8.0 and later"
  std::string plan_sha256;
  std::uint64_t plan_bytes = 0;
  bool host_code = false;  // version-compatible: it brings code that runs on the host
};

struct Plan {
  std::string path;
  std::vector<std::uint8_t> bytes;
  std::string backend;
  std::string version;  // as the plan says it; empty in a format that is newer than ours
  std::optional<Sidecar> sidecar;
};

// A plan, and what stands beside it. Throws Error: bad input without the file, damaged for what is no plan or a cut
// one.
Plan read_plan(const std::string& path);

// Whether the plan is the one that its sidecar describes, for this kind of machine. Throws Error (damaged).
void check_plan(const Plan& plan);

// Throws Error (damaged) unless this version of the plan's own library ("10.3.0") can run it.
void check_version(const Plan& plan, const std::string& installed);

// Throws Error (damaged) for a GPU that the plan, or TensorRT-RTX with any plan, does not run on.
void check_gpu(const Plan& plan, const Gpu& gpu);

// Whether code of the plan's may run on the host, for which its sidecar is not enough: `allowed` is the user's word, as
// is HIRESVIT_HOST_CODE=1. Throws Error (usage) without one.
bool allow_host_code(const Plan& plan, bool allowed);

// "TensorRT-RTX" for "tensorrt_rtx".
const char* title_of(const std::string& backend);

}  // namespace hiresvit
