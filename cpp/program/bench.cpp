#include "bench.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <numeric>

namespace {

using Samples = std::vector<double>;  // milliseconds
using Clock = std::chrono::steady_clock;

double since(Clock::time_point begun) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begun).count();
}

// trtexec's: element max(N - 1 - floor((1 - p / 100) N), 0) of the ascending order.
double percentile(const Samples& sorted, int p) {
  const std::size_t beyond = static_cast<std::size_t>(100 - p) * sorted.size() / 100;
  return beyond + 1 < sorted.size() ? sorted[sorted.size() - 1 - beyond] : sorted.front();
}

double median(Samples samples) {
  std::sort(samples.begin(), samples.end());
  const std::size_t half = samples.size() / 2;
  return samples.size() % 2 ? samples[half] : (samples[half - 1] + samples[half]) / 2;
}

void print(const char* name, Samples samples) {
  std::sort(samples.begin(), samples.end());
  const double mean = std::accumulate(samples.begin(), samples.end(), 0.0) / static_cast<double>(samples.size());
  std::printf("%s: min = %.3f ms, max = %.3f ms, mean = %.3f ms, median = %.3f ms, percentile(90%%) = %.3f ms,"
              " percentile(95%%) = %.3f ms, percentile(99%%) = %.3f ms\n",
              name, samples.front(), samples.back(), mean, median(samples), percentile(samples, 90),
              percentile(samples, 95), percentile(samples, 99));
}

double frames_per_second(hiresvit::Engine& engine, const hiresvit::Picture& picture, hiresvit::Answer& answer,
                         int frames) {
  const Clock::time_point begun = Clock::now();
  for (int frame = 0; frame < frames; ++frame) {
    engine.submit(picture);
    if (frame > 0) engine.wait(answer);
  }
  engine.wait(answer);
  return 1000 * frames / since(begun);
}

}  // namespace

void bench(hiresvit::Engine& engine, const hiresvit::Picture& picture, hiresvit::Answer answer, int frames) {
  for (int warm_up = 0; warm_up < 2; ++warm_up) engine.run(picture, answer);
  Samples whole, prepare, network, answered, enqueue, h2d, compute, d2h;
  for (int frame = 0; frame < frames; ++frame) {
    const Clock::time_point begun = Clock::now();
    engine.run(picture, answer);
    whole.push_back(since(begun));
    const hiresvit_times times = engine.times();
    prepare.push_back(times.prepare), network.push_back(times.network), answered.push_back(times.answer);
    if (times.on_gpu == 0) continue;
    enqueue.push_back(times.enqueue), h2d.push_back(times.h2d);
    compute.push_back(times.compute), d2h.push_back(times.d2h);
  }
  std::printf("Throughput: %.4f qps\n", frames_per_second(engine, picture, answer, frames));
  print("Latency", network);
  if (!compute.empty()) {
    print("Enqueue Time", enqueue);
    print("H2D Latency", h2d);
    print("GPU Compute Time", compute);
    print("D2H Latency", d2h);
  }
  print("Frame Time", whole);
  std::printf("Frame: prepare (resize, normalise, copy) = %.3f ms, network = %.3f ms, labels = %.3f ms, whole = %.3f ms"
              " (medians of %d frames, one after the other; the throughput is of two under way)\n",
              median(prepare), median(network), median(answered), median(whole), frames);
}
