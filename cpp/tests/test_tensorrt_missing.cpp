// A plan on a machine that cannot run it: no module, no driver. Nothing of the fakes is in this program.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "backend.hpp"
#include "error.hpp"

namespace {

int expect(const std::string& plan, int code, const std::string& part) {
  try {
    hiresvit::open_tensorrt(plan, {});
    std::fprintf(stderr, "it opened\n");
  } catch (const hiresvit::Error& error) {
    if (error.code == code && std::string(error.what()).find(part) != std::string::npos) return 0;
    std::fprintf(stderr, "%d: %s\n", error.code, error.what());
  }
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  char folder[] = "/tmp/tensorrt_XXXXXX";
  if (mkdtemp(folder) == nullptr) return 2;
  const std::string plan = std::string(folder) + "/a.plan", module = argv[1];
  std::ofstream(plan) << "ftrt" << std::string(20, '\0') << std::string("\12\3\0\36", 4) << "y = 2 x + 1";

  setenv("HIRESVIT_TENSORRT_MODULE", (module + "/nowhere.so").c_str(), 1);
  int failed = expect(plan, 6, "nowhere.so: cannot open shared object file");
  failed += expect(plan + "x", 1, "a.planx");
  std::ofstream(plan + ".json") << "{}";
  failed += expect(plan, 7, "a.plan.json does not describe a plan");  // which is known without the module
  unlink((plan + ".json").c_str());

  setenv("HIRESVIT_TENSORRT_MODULE", (module + "/libhiresvit_tensorrt_fake.so").c_str(), 1);
  if (access("/dev/nvidia0", F_OK) != 0 && access("/etc/nv_tegra_release", F_OK) != 0)
    failed +=
        expect(plan, 6, "a plan runs on an NVIDIA GPU, and this machine has none with a driver; run the .onnx graph");
  unlink(plan.c_str()), rmdir(folder);
  return failed;
}
