#include "plan.hpp"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "error.hpp"
#include "file.hpp"
#include "sha256.hpp"

namespace hiresvit {
namespace {

using Json = nlohmann::json;
using Numbers = std::vector<unsigned long>;

constexpr std::uint64_t kMostText = 1u << 26, kMostPlan = 1ull << 36;
// A plan starts with a tag, the version of its format (of which 0 is known) and later the library's; RTX 1.7 also
// writes its size.
constexpr std::size_t kFormatAt = 4, kSizeAt = 16, kVersionAt = 24, kHeader = 28;

[[noreturn]] void damaged(const std::string& what) { throw Error(kDamaged, what); }

bool is_rtx(const Plan& plan) { return plan.backend == "tensorrt_rtx"; }

// All numbers of a text: {10, 3, 0} of "10.3.0".
Numbers numbers(const std::string& text) {
  Numbers found;
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] < '0' || text[at] > '9') {
      ++at;
      continue;
    }
    const std::size_t end = std::min(text.find_first_not_of("0123456789", at), text.size());
    found.push_back(std::strtoul(text.substr(at, end - at).c_str(), nullptr, 10));
    at = end;
  }
  return found;
}

// Equal as far as both go: a plan says 10.3.0.30, and its library sometimes 10.3.0.
bool same_version(const std::string& one, const std::string& other) {
  const Numbers a = numbers(one), b = numbers(other);
  return std::equal(a.begin(), a.begin() + static_cast<long>(std::min(a.size(), b.size())), b.begin());
}

// A version-compatible plan runs in later versions of its own major version, and in one other (11.4.1's matrix).
bool compatible(const std::string& built, const std::string& here) {
  const Numbers a = numbers(built), b = numbers(here);
  if (a.empty() || b.empty() || !(b > a)) return false;
  return a[0] == b[0] || (a[0] == 8 && b[0] == 10) || (a[0] == 10 && b[0] == 11);
}

std::string sidecar_path(const std::string& plan) {
  const std::string beside = plan + ".json";
  char target[PATH_MAX];
  char link[1];
  if (access(beside.c_str(), F_OK) == 0 || readlink(plan.c_str(), link, sizeof link) < 0) return beside;
  return realpath(plan.c_str(), target) != nullptr ? std::string(target) + ".json" : beside;
}

std::string file_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

[[noreturn]] void no_sidecar(const std::string& path, const std::string& why) {
  damaged(path + " does not describe a plan: " + shown(why) + "; build the plan again");
}

const Json& member(const Json& values, const char* name, const std::string& path) {
  const auto found = values.find(name);
  if (found == values.end()) no_sidecar(path, std::string(name) + " is missing");
  return *found;
}

std::string text(const Json& values, const char* name, const std::string& path) {
  const Json& found = member(values, name, path);
  if (!found.is_string()) no_sidecar(path, std::string(name) + " must be a text");
  return found.get<std::string>();
}

bool is_version_compatible(const Json& flags, const std::string& path) {
  if (!flags.is_object()) no_sidecar(path, "flags must be an object");
  const auto builder = flags.find("builder_flags");
  if (builder == flags.end()) return false;
  if (!builder->is_array()) no_sidecar(path, "flags/builder_flags must be a list");
  return std::any_of(builder->begin(), builder->end(), [](const Json& one) { return one == "VERSION_COMPATIBLE"; });
}

Sidecar parse_sidecar(const std::vector<std::uint8_t>& data, const std::string& path) {
  const Json values = Json::parse(data.begin(), data.end(), nullptr, false);
  if (values.is_discarded()) damaged(path + " cannot be read as JSON; build the plan again");
  if (!values.is_object() || values.value("kind", Json()) != "hiresvit-plan")
    damaged(path + " does not describe a plan; build the plan again");
  if (const Json version = values.value("schema_version", Json()); version != 1)
    damaged(path + " has schema version " + shown(version.dump(-1, ' ', true, Json::error_handler_t::replace)) +
            ", this hiresvit reads 1; build the plan again");
  const Json& report = member(values, "report", path);
  if (!report.is_object()) no_sidecar(path, "report must be an object");
  Sidecar found;
  found.backend = text(report, "backend", path);
  found.version = text(report, "version", path);
  found.platform = text(report, "platform", path);
  found.compute_capability = text(report, "compute_capability", path);
  found.plan_sha256 = text(report, "plan_sha256", path);
  const Json& bytes = member(report, "plan_bytes", path);
  if (!bytes.is_number_unsigned()) no_sidecar(path, "plan_bytes must be a number from 0 on");
  found.plan_bytes = bytes.get<std::uint64_t>();
  found.host_code = is_version_compatible(member(report, "flags", path), path);
  return found;
}

std::optional<Sidecar> read_sidecar(const std::string& plan) {
  const std::string path = sidecar_path(plan);
  if (access(path.c_str(), F_OK) != 0) return std::nullopt;
  return parse_sidecar(read_file(path, kMostText, kDamaged), path);
}

void check_sidecar(const Plan& plan, bool size_known) {
  const Sidecar& sidecar = *plan.sidecar;
  const std::string beside = file_name(sidecar_path(plan.path));
  const std::uint64_t size = plan.bytes.size();
  const bool alike = sidecar.backend == plan.backend && same_version(sidecar.version, plan.version);
  if (alike && !size_known && size < sidecar.plan_bytes)
    damaged(plan.path + " is cut, or not the plan that " + beside + " describes: " + std::to_string(size) + " of " +
            std::to_string(sidecar.plan_bytes) + " bytes are there; copy both again, or build it again");
  if (!alike || size != sidecar.plan_bytes || sha256(plan.bytes.data(), plan.bytes.size()) != sidecar.plan_sha256)
    damaged(plan.path + " is not the plan that " + beside + " describes; copy both again, or build it again");
}

// "x86_64" of "Linux x86_64" and of "Windows AMD64".
std::string processor(const std::string& platform) {
  const std::string machine = platform.substr(platform.rfind(' ') + 1);
  if (machine == "AMD64") return "x86_64";
  return machine == "ARM64" ? "aarch64" : machine;
}

void check_platform(const Plan& plan) {
  utsname system{};
  if (uname(&system) != 0) return;
  const std::string here = std::string(system.sysname) + " " + system.machine, built = plan.sidecar->platform;
  if (is_rtx(plan) ? processor(built) == processor(here) : built == here) return;
  damaged(plan.path + " was built on " + shown(built) + " and this is " + here + "; a plan of " +
          title_of(plan.backend) + " runs only on the " + (is_rtx(plan) ? "processor" : "system and processor") +
          " that it was built on: build it again here");
}

// Not Orin, Hopper, data-centre Blackwell and Thor, for which its builder has no target (RTX 1.7).
bool rtx_runs_on(const std::string& capability) {
  const Numbers have = numbers(capability);
  return have >= Numbers{7, 5} && have != Numbers{8, 7} && have != Numbers{9, 0} && have[0] != 10 && have[0] != 11;
}

// `wanted` is "8.7", "8.6, 8.9" or "8.0 and later"; anything else says nothing about the GPU.
bool matches(const std::string& wanted, const std::string& have) {
  const Numbers all = numbers(wanted), own = numbers(have);
  if (all.size() < 2 || all.size() % 2 != 0) return true;
  const std::string later = "and later";
  if (wanted.size() > later.size() && wanted.compare(wanted.size() - later.size(), later.size(), later) == 0)
    return own >= Numbers{all[0], all[1]};
  for (std::size_t at = 0; at < all.size(); at += 2)
    if (own == Numbers{all[at], all[at + 1]}) return true;
  return false;
}

}  // namespace

const char* title_of(const std::string& backend) { return backend == "tensorrt_rtx" ? "TensorRT-RTX" : "TensorRT"; }

Plan read_plan(const std::string& path) {
  Plan plan;
  plan.path = path;
  plan.bytes = read_file(path, kMostPlan, kBadInput);
  const auto starts = [&](const char* tag) { return std::memcmp(plan.bytes.data(), tag, 4) == 0; };
  if (plan.bytes.size() < kHeader || !(starts("ftrt") || starts("vtrt")))
    damaged(path + " is not a plan of TensorRT or TensorRT-RTX, or a cut one; build it again");
  plan.backend = starts("vtrt") ? "tensorrt_rtx" : "tensorrt";
  const std::uint8_t* const at = plan.bytes.data();
  if (std::all_of(at + kFormatAt, at + kFormatAt + 4, [](std::uint8_t one) { return one == 0; }))
    for (std::size_t i = kVersionAt; i < kHeader; ++i)
      plan.version += (i > kVersionAt ? "." : "") + std::to_string(at[i]);
  plan.sidecar = read_sidecar(path);
  return plan;
}

void check_plan(const Plan& plan) {
  const bool size_known = is_rtx(plan) && !plan.version.empty();
  std::uint64_t declared = 0;
  if (size_known)
    for (std::size_t i = 8; i-- > 0;) declared = declared << 8 | plan.bytes[kSizeAt + i];
  if (plan.bytes.size() < declared)
    damaged(plan.path + " is cut: " + std::to_string(plan.bytes.size()) + " of " + std::to_string(declared) +
            " bytes are left; copy or build it again");
  if (!plan.sidecar) return;
  check_sidecar(plan, size_known);
  check_platform(plan);
}

void check_version(const Plan& plan, const std::string& installed) {
  const std::string version = !plan.version.empty() || !plan.sidecar ? plan.version : plan.sidecar->version;
  if (same_version(version, installed)) return;
  const bool host_code = plan.sidecar && plan.sidecar->host_code;
  if (host_code && compatible(version, installed)) return;
  const std::string rule =
      host_code ? "a version-compatible plan runs in later versions of its major version and in the next one"
                : "a plan runs only in the version that built it";
  damaged(plan.path + " was built by " + title_of(plan.backend) + " " + shown(version) + " and " + installed +
          " is installed; " + rule + ": build it again here");
}

void check_gpu(const Plan& plan, const Gpu& gpu) {
  const std::string& have = gpu.compute_capability;
  if (is_rtx(plan) && !rtx_runs_on(have))
    damaged(plan.path + " is TensorRT-RTX's, which does not run on " + gpu.name + " (compute capability " + have +
            "): build a plan with TensorRT on this machine");
  if (plan.sidecar && !matches(plan.sidecar->compute_capability, have))
    damaged(plan.path + " runs on compute capability " + shown(plan.sidecar->compute_capability) + "; " + gpu.name +
            " has " + have + ": build it again for this GPU");
}

bool allow_host_code(const Plan& plan, bool allowed) {
  if (!plan.sidecar || !plan.sidecar->host_code) return false;
  const char* const set = std::getenv("HIRESVIT_HOST_CODE");
  if (allowed || (set != nullptr && std::strcmp(set, "1") == 0)) return true;
  throw Error(kUsage, plan.path +
                          " is version-compatible: it brings native code, which runs as you do; if you built it,"
                          " or trust who did, set HIRESVIT_HOST_CODE=1");
}

}  // namespace hiresvit
