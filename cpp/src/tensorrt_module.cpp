// TensorRT lives in a module of its own, which is compiled against one of its versions and opened here.
#include "backend.hpp"
#include "error.hpp"
#include "library.hpp"
#include "plan.hpp"

namespace hiresvit {

namespace {

// "tensorrt" or "tensorrt_rtx", of a plan that is whole and for this kind of machine.
std::string checked_backend(const std::string& path) {
  const Plan plan = read_plan(path);
  check_plan(plan);
  return plan.backend;
}

}  // namespace

std::unique_ptr<Backend> open_tensorrt(const std::string& plan, const BackendOptions& options) {
  const std::string name = "libhiresvit_" + checked_backend(plan) + ".so";
  const std::string folder = own_folder();
  const std::string path = first_named("", "HIRESVIT_TENSORRT_MODULE", folder.empty() ? name : folder + "/" + name);
  void* const found = library_symbol(path, "hiresvit_open_tensorrt", "hiresvit's module for TensorRT",
                                     "build it with -DHIRESVIT_WITH_TENSORRT=ON where NvInfer.h is, put it beside this"
                                     " library or name it in HIRESVIT_TENSORRT_MODULE; or take a graph of the bundle");
  const auto open = reinterpret_cast<decltype(&hiresvit_open_tensorrt)>(found);
  Backend* opened = nullptr;
  char error[1024] = "";
  const int code = open(plan.c_str(), &options, &opened, error, sizeof error);
  if (code != 0 || opened == nullptr) throw Error(code != 0 ? code : kFailed, error);
  return std::unique_ptr<Backend>(opened);
}

}  // namespace hiresvit
