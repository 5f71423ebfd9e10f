// Whether a TensorRT loads a plan on this GPU, whatever hiresvit thinks of the two: probe LIBRARY PLAN. Compiled with
// the sources of the module; it says what TensorRT said.
#include <cstdio>

#include "cuda.hpp"
#include "error.hpp"
#include "plan.hpp"
#include "tensorrt_library.hpp"

int main(int argc, char** argv) {
  using namespace hiresvit;
  if (argc != 3) return 2;
  try {
    const Plan plan = read_plan(argv[2]);
    const Cuda cuda(0);
    const Cuda::Current current(cuda);
    const TensorRtLibrary library(argv[1]);
    const auto runtime = library.runtime();
    const std::unique_ptr<nvinfer1::ICudaEngine> engine(
        runtime->deserializeCudaEngine(plan.bytes.data(), plan.bytes.size()));
    std::printf("%s %s on %s (compute capability %s): %s\n", title_of(plan.backend), library.version().c_str(),
                cuda.gpu().name.c_str(), cuda.gpu().compute_capability.c_str(),
                engine ? "loads" : last_words().c_str());
    return engine ? 0 : 1;
  } catch (const Error& error) {
    std::printf("%d %s\n", error.code, error.what());
    return error.code;
  }
}
