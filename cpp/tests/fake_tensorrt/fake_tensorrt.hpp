// A TensorRT that runs plans in host memory on the CUDA of fake_cuda.hpp: libnvinfer.so.10 and, compiled with
// FAKE_TENSORRT_RTX, libtensorrt_rtx.so.1. As tests/fake_engine.py is for Python.
#pragma once

#include <NvInfer.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace fake_tensorrt {

constexpr double kRunMs = 2.0;

using Shape = std::vector<std::int64_t>;

struct Tensor {
  std::string name;
  nvinfer1::TensorIOMode mode;
  Shape shape;  // -1 is an open size
  nvinfer1::DataType type = nvinfer1::DataType::kFLOAT;
  nvinfer1::TensorLocation location = nvinfer1::TensorLocation::kDEVICE;
  nvinfer1::TensorFormat format = nvinfer1::TensorFormat::kLINEAR;
  Shape least = {}, best = {}, most = {};
};

// What runs: the memory of each tensor and how many elements it has, by name.
using Memory = std::map<std::string, std::pair<void*, std::size_t>>;

struct State {
  std::vector<Tensor> tensors;  // by default y = 2 x + 1 over (2, 3)
  std::function<void(const Memory&)> compute;
  std::string good_plan;         // what a plan must contain
  std::set<std::string> refuse;  // these calls fail as TensorRT says it: with a logged line and a zero
  std::string words = "Error Code 1: Cuda Runtime (out\nof luck)";
  std::string warning;
  std::int32_t version[4] = {};
  std::map<std::string, int> alive;
  int contexts = 0, enqueued = 0, shapes_set = 0;
  bool host_code = false;
  int strategy = 0;  // the last context's, of RTX
};

}  // namespace fake_tensorrt

extern "C" fake_tensorrt::State* fake_tensorrt_state();
extern "C" void fake_tensorrt_reset();
