// Why a plan does not open: its file and sidecar, the machine, the library, and what TensorRT says no to.
#include <cstdlib>

#include "error.hpp"
#include "tensorrt_case.hpp"

using namespace hiresvit;
using nvinfer1::DataType;
using nvinfer1::TensorIOMode;

namespace {

using Replaced = std::vector<std::pair<std::string, std::string>>;

void test_plans_that_are_none() {
  Case it;
  const std::string good = it.library.plan_bytes();
  it.write_plan("PK" + good);
  CHECK(says(it.refused(), 7, "a.plan is not a plan of TensorRT or TensorRT-RTX, or a cut one; build it again"));
  it.write_plan(good.substr(0, 27));
  CHECK(says(it.refused(), 7, "a.plan is not a plan"));
  it.write_plan("");
  CHECK(says(it.refused(), 7, "a.plan is not a plan"));
  it.remove_sidecar();
  it.write_plan(good.substr(0, 40));
  CHECK(says(it.refused(), 7,
             "TensorRT cannot load it (IRuntime::deserializeCudaEngine: Error Code 1: magic tag does not"
             " match); build it again here"));
  const std::string rtx = Library{true}.plan_bytes();
  it.write_plan(rtx);
  CHECK(says(it.refused(), 6, "a.plan is a plan of TensorRT-RTX, and this module is for TensorRT: build"));
  it.plan += "x";
  CHECK(it.refused().code == 1);
  it.plan.pop_back();
}

void test_plans_that_are_not_their_sidecars() {
  Case it;
  const std::string good = it.library.plan_bytes(), again = "copy both again, or build it again";
  it.write_plan(good.substr(0, 40));
  CHECK(says(it.refused(), 7,
             "a.plan is cut, or not the plan that a.plan.json describes: 40 of 60 bytes are there; " + again));
  it.write_plan(good + "x");
  CHECK(says(it.refused(), 7, "a.plan is not the plan that a.plan.json describes; " + again));
  it.write_plan(good.substr(0, 59) + "D");
  CHECK(says(it.refused(), 7, "a.plan is not the plan that a.plan.json describes; " + again));
  it.write_plan(good);
  for (const Replaced& replaced :
       {Replaced{{"10.3.0.30", "10.4.0.30"}}, Replaced{{"\"tensorrt\"", "\"tensorrt_rtx\""}}}) {
    it.write_sidecar(replaced);
    CHECK(says(it.refused(), 7, "a.plan is not the plan that a.plan.json describes"));
  }
  it.write_sidecar({{"\"platform\": \"Linux ", "\"platform\": \"Windows "}});
  CHECK(says(it.refused(), 7, "; a plan of TensorRT runs only on the system and processor that it was built on"));
  Case other(true);
  other.write_plan(other.library.plan_bytes().substr(0, 40));
  CHECK(says(other.refused(), 7, "a.plan is cut: 40 of 60 bytes are left; copy or build it again"));
  other.write_plan(other.library.plan_bytes());
  other.write_sidecar({{"\"platform\": \"Linux ", "\"platform\": \"Windows "}});  // RTX minds the processor alone
  other.open();
  other.write_sidecar({{"\"platform\": \"Linux ", "\"platform\": \"Linux s390"}});
  CHECK(says(other.refused(), 7, "runs only on the processor that it was built on"));
}

void test_sidecars_that_are_none() {
  const std::vector<std::pair<Replaced, std::string>> cases = {
      {{{"{\"kind\"", "{{\"kind\""}}, "a.plan.json cannot be read as JSON"},
      {{{"hiresvit-plan", "another"}}, "a.plan.json does not describe a plan; build the plan again"},
      {{{"\"schema_version\": 1", "\"schema_version\": 2"}}, "has schema version 2, this hiresvit reads 1"},
      {{{"\"schema_version\": 1,", ""}}, "has schema version null"},
      {{{"\"report\"", "\"other\""}}, "report is missing"},
      {{{"\"version\": \"10.3.0.30\"", "\"version\": 10"}}, "version must be a text"},
      {{{"\"plan_bytes\": ", "\"plan_bytes\": -"}}, "plan_bytes must be a number from 0 on"},
      {{{"[\"TF32\"]", "7"}}, "flags/builder_flags must be a list"},
      {{{"\"flags\": {\"builder_flags\": [\"TF32\"]}", "\"flags\": []"}}, "flags must be an object"},
  };
  for (const auto& [replaced, words] : cases) {
    Case it;
    it.write_sidecar(replaced);
    CHECK(says(it.refused(), 7, words));
  }
}

void test_a_plan_of_another_machine() {
  {
    Case it;
    it.trt.version[1] = 13;
    CHECK(says(it.refused(), 7,
               "was built by TensorRT 10.3.0.30 and 10.13.0.30 is installed; a plan runs only in the"
               " version that built it: build it again here"));
    it.remove_sidecar();
    CHECK(says(it.refused(), 7, "was built by TensorRT 10.3.0.30 and 10.13.0.30 is installed"));
  }
  {
    Case it;
    it.cuda.minor = 9, it.cuda.name = "NVIDIA L4";
    CHECK(says(it.refused(), 7, "runs on compute capability 8.7; NVIDIA L4 has 8.9: build it again for this GPU"));
    it.write_sidecar({{"\"8.7\"", "\"8.6, 8.9\""}});
    it.open();
    it.write_sidecar({{"\"8.7\"", "\"9.0 and later\""}});
    CHECK(it.refused().code == 7);
    it.write_sidecar({{"\"8.7\"", "\"8.0 and later\""}});
    it.open();
    it.write_sidecar({{"\"8.7\"", "\"whatever is here\""}});
    it.open();
  }
  for (const auto& [major, minor] : {std::pair{8, 7}, {9, 0}, {10, 3}, {11, 0}, {7, 0}}) {
    Case it(true);
    it.cuda.major = major, it.cuda.minor = minor;
    CHECK(
        says(it.refused(), 7, "is TensorRT-RTX's, which does not run on NVIDIA GeForce RTX 4090 (compute capability"));
  }
  for (const auto& [major, minor] : {std::pair{8, 0}, {8, 6}, {12, 0}, {12, 1}}) {
    Case it(true);
    it.cuda.major = major, it.cuda.minor = minor;
    it.open();
  }
}

void test_native_code_needs_the_users_word() {
  Case it;
  const Replaced compatible = {{"TF32", "VERSION_COMPATIBLE"}};
  it.write_sidecar(compatible);
  CHECK(says(it.refused(), 2,
             "a.plan is version-compatible: it brings native code, which runs as you do; if you built"
             " it, or trust who did, set HIRESVIT_HOST_CODE=1"));
  setenv("HIRESVIT_HOST_CODE", "1", 1);
  it.open();
  CHECK(it.trt.host_code);
  unsetenv("HIRESVIT_HOST_CODE");
  it.options.host_code = true;
  it.trt.version[1] = 16;  // a later version runs it
  it.open();
  it.trt.version[1] = 2;
  CHECK(says(it.refused(), 7, "a version-compatible plan runs in later versions of its major version and in the next"));
}

void test_no_gpu() {
  Case it;
  it.cuda.init_error = 100;
  CHECK(says(it.refused(), 6,
             "a.plan: CUDA finds no GPU (CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected);"
             " check CUDA_VISIBLE_DEVICES, or run the .onnx graph"));
  it.cuda.init_error = 0, it.cuda.devices = 0;
  CHECK(says(it.refused(), 6, "CUDA finds no GPU (it counts 0)"));
  it.cuda.devices = 1, it.options.device = 1;
  CHECK(says(it.refused(), 2, "GPU 1 is none of this machine's 1"));
  it.options.device = -1;
  CHECK(it.refused().code == 2);
}

void test_libraries_that_do_not_fit() {
  Case it;
  it.options.library = "/nowhere/libnvinfer.so.10";
  CHECK(
      says(it.refused(), 6, "a.plan: TensorRT cannot be opened (/nowhere/libnvinfer.so.10: cannot open shared object"));
  it.options.library = "libdl.so.2";
  CHECK(says(it.refused(), 6, "libdl.so.2 is not TensorRT: it lacks getInferLibMajorVersion"));
  it.options.library.clear();
  setenv("HIRESVIT_TENSORRT", it.library.path().c_str(), 1);
  it.open();
  it.trt.version[0] = 11;
  CHECK(says(it.refused(), 6, "libnvinfer.so.10 is version 11.3.0.30, and this module was compiled for TensorRT 10: "));
  unsetenv("HIRESVIT_TENSORRT");
}

void test_what_tensorrt_refuses() {
  const std::string why = " (Error Code 1: Cuda Runtime (out of luck))";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"createInferRuntime", "TensorRT 10.3.0.30 does not start here" + why},
      {"createExecutionContext", "a.plan: no memory or means to run it" + why},
      {"setTensorAddress", "a.plan: TensorRT does not take memory for 'x'" + why},
      {"setInputShape", "a.plan: TensorRT does not take 'x' as (1, 3)" + why},
      {"data dependent", "a.plan: the shape of 'y' depends on the data, and only fixed ones can be run (it gives no"},
  };
  for (const auto& [call, words] : cases) {
    Case it;
    it.trt.tensors = {{"x", TensorIOMode::kINPUT, {-1, 3}}, {"y", TensorIOMode::kOUTPUT, {-1, 3}}};
    it.trt.tensors[0].least = it.trt.tensors[0].best = it.trt.tensors[0].most = {1, 3};
    it.trt.refuse = {call};
    CHECK(says(it.refused(), 5, words));
    it.trt.refuse.clear();
    frame(*it.open(), 0, 1);
  }
  Case it;
  it.trt.refuse = {"deserializeCudaEngine"};
  it.trt.words = "Error Code 1: Cuda Runtime (out of memory)";
  CHECK(says(it.refused(), 5, "a.plan: Error Code 1: Cuda Runtime (out of memory); close what else uses the GPU"));
  it.trt.refuse = {"second context"};
  const auto backend = it.open();
  it.trt.contexts = 1;
  CHECK(says(refusal_of([&] { backend->submit(1); }), 5, "no memory or means to run it"));
  frame(*backend, 0, 1);
}

void test_tensors_that_cannot_be_fed() {
  Case it;
  const auto with = [&](const std::function<void(fake_tensorrt::Tensor&)>& change, const std::string& words) {
    it.trt.tensors = {{"x", TensorIOMode::kINPUT, {2, 3}}, {"y", TensorIOMode::kOUTPUT, {2, 3}}};
    change(it.trt.tensors[1]);
    CHECK(says(it.refused(), 2, "a.plan: 'y' is " + words));
  };
  with([](auto& y) { y.location = nvinfer1::TensorLocation::kHOST; }, "read by the host, as a shape; build it with");
  with([](auto& y) { y.format = nvinfer1::TensorFormat::kCHW16; }, "not laid out plainly; build the plan with plain");
  with([](auto& y) { y.type = DataType::kINT8; }, "int8; only uint8, int32, int64, float16 and float32 are taken");
  with([](auto& y) { y.type = DataType::kBOOL; }, "bool; ");
  with([](auto& y) { y.type = DataType::kBF16; }, "bfloat16; ");
  with([](auto& y) { y.type = DataType::kFP8; }, "float8; ");
  with([](auto& y) { y.type = DataType::kFP4; }, "float4; ");
  with([](auto& y) { y.type = static_cast<DataType>(99); }, "of an unknown type; ");
}

void test_what_tensorrt_warns_of_is_said() {
  Case it;
  it.trt.warning = "Using an engine plan file across different\n  models of devices";
  CHECK(it.open()->about() ==
        "TensorRT 10.3.0.30, Orin; it warns: Using an engine plan file across different models of"
        " devices");
  it.trt.warning.clear();
  CHECK(it.open()->about() == "TensorRT 10.3.0.30, Orin");
  it.trt.warning = std::string(100000, 'w');
  CHECK(it.open()->about().size() < 2200);
}

void test_a_plan_without_a_sidecar_runs() {
  Case it;
  it.remove_sidecar();
  it.cuda.minor = 6;
  frame(*it.open(), 0, 1);
}

}  // namespace

void test_refusals() {
  test_plans_that_are_none();
  test_plans_that_are_not_their_sidecars();
  test_sidecars_that_are_none();
  test_a_plan_of_another_machine();
  test_native_code_needs_the_users_word();
  test_no_gpu();
  test_libraries_that_do_not_fit();
  test_what_tensorrt_refuses();
  test_tensors_that_cannot_be_fed();
  test_what_tensorrt_warns_of_is_said();
  test_a_plan_without_a_sidecar_runs();
}
