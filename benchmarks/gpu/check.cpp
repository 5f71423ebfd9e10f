// The backend for TensorRT on a real driver: benchmarks/gpu_check.sh runs it. `check FOLDER` on engine.cu's network,
// with a log of what held and what it took; `check FOLDER few` is short enough for compute-sanitizer.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>

#include "backend.hpp"
#include "error.hpp"

using namespace hiresvit;
using Clock = std::chrono::steady_clock;

namespace {

int failures = 0;

void say(bool holds, const std::string& what) {
  std::printf("%s  %s\n", holds ? "ok    " : "FAILED", what.c_str());
  std::fflush(stdout);
  failures += !holds;
}

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::string write_plan(const std::string& folder, long elements, int rounds) {
  const std::string path = folder + "/a.plan";
  std::ofstream(path, std::ios::binary) << "ftrt" << std::string(20, '\0') << std::string("\12\3\0\36", 4)
                                        << "elements " << elements << " rounds " << rounds << '\n';
  return path;
}

void fill(Backend& backend, int slot, float start) {
  auto* const x = static_cast<float*>(backend.input(slot, 0));
  for (std::size_t i = 0; i < backend.inputs()[0].bytes / 4; ++i) x[i] = start + static_cast<float>(i % 4096);
}

bool is_right(Backend& backend, int slot, float start) {
  const auto* const y = static_cast<const float*>(backend.output(slot, 0));
  for (std::size_t i = 0; i < backend.outputs()[0].bytes / 4; ++i)
    if (y[i] != 2 * (start + static_cast<float>(i % 4096)) + 1) return false;
  return true;
}

// Frames in both slots, in both orders; then what one frame after the other takes, and two at a time.
void run(const std::string& plan, const BackendOptions& options, const std::string& what, int frames) {
  const auto backend = open_tensorrt(plan, options);
  bool right = true;
  for (int step = 0; step < 6; ++step) {
    const auto start = static_cast<float>(step);
    fill(*backend, 0, start), fill(*backend, 1, start + 100);
    backend->submit(0), backend->submit(1);
    backend->wait(step % 2), backend->wait(1 - step % 2);
    right = right && is_right(*backend, 0, start) && is_right(*backend, 1, start + 100);
  }
  say(right, what + ": two frames in flight are right (" + backend->about() + ")");
  GpuTimes times, sum;
  const auto one = Clock::now();
  for (int i = 0; i < frames; ++i) {
    backend->submit(0), backend->wait(0);
    backend->times(0, times);
    sum.enqueue += times.enqueue, sum.h2d += times.h2d, sum.compute += times.compute, sum.d2h += times.d2h;
  }
  const double alone = ms_since(one) / frames;
  const auto two = Clock::now();
  backend->submit(0);
  for (int i = 1; i < frames; ++i) backend->submit(i % 2), backend->wait(1 - i % 2);
  backend->wait(1 - frames % 2);
  std::printf("        one at a time %.3f ms (enqueue %.3f, h2d %.3f, compute %.3f, d2h %.3f), two in flight %.3f ms\n",
              alone, sum.enqueue / frames, sum.h2d / frames, sum.compute / frames, sum.d2h / frames,
              ms_since(two) / frames);
}

void refuses(const std::string& plan, const BackendOptions& options, int code, const std::string& what) {
  try {
    const auto backend = open_tensorrt(plan, options);
    say(false, what + ": it opened");
  } catch (const Error& error) {
    say(error.code == code, what + ": " + std::to_string(error.code) + " " + error.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string folder = argc > 1 ? argv[1] : ".";
  const int frames = argc > 2 ? 4 : 400;
  try {
    for (const bool graph : {false, true}) {
      BackendOptions options;
      options.cuda_graph = graph;
      const std::string tail = graph ? ", CUDA graph" : "";
      run(write_plan(folder, 1000, 1), options, "small" + tail, frames);
      run(write_plan(folder, 3L * 512 * 1024, 200), options, "3 x 512 x 1024 floats" + tail, frames);
    }
    refuses(write_plan(folder, 1L << 43, 1), {}, 5, "too large");
    BackendOptions another;
    another.device = 7;
    refuses(write_plan(folder, 10, 1), another, 2, "a GPU that is not there");
    for (int i = 0; i < (argc > 2 ? 3 : 50); ++i) {
      const auto backend = open_tensorrt(write_plan(folder, 1 << 20, 1), {});
      fill(*backend, 0, 1), backend->submit(0);  // and gone with it in flight
    }
    say(true, "engines come and go with a frame in flight");
    run(write_plan(folder, 1000, 1), {}, "after all that", 4);
  } catch (const Error& error) {
    say(false, std::to_string(error.code) + " " + error.what());
  }
  std::printf("%d failures\n", failures);
  return failures != 0;
}
