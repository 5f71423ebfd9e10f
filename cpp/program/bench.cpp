#include "bench.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>

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

struct Times {
  Samples whole, prepare, network, answer, enqueue, h2d, compute, d2h;
};

Times measure(hiresvit::Engine& engine, const hiresvit::Picture& picture, hiresvit::Answer& answer, int frames) {
  Times found;
  for (int warm_up = 0; warm_up < 2; ++warm_up) engine.run(picture, answer);
  for (int frame = 0; frame < frames; ++frame) {
    const Clock::time_point begun = Clock::now();
    engine.run(picture, answer);
    found.whole.push_back(since(begun));
    const hiresvit_times times = engine.times();
    found.prepare.push_back(times.prepare), found.network.push_back(times.network);
    found.answer.push_back(times.answer);
    if (times.on_gpu == 0) continue;
    found.enqueue.push_back(times.enqueue), found.h2d.push_back(times.h2d);
    found.compute.push_back(times.compute), found.d2h.push_back(times.d2h);
  }
  return found;
}

nlohmann::json median_or_null(const Samples& samples) {
  return samples.empty() ? nlohmann::json(nullptr) : nlohmann::json(median(samples));
}

// One side of `hiresvit bench`, in its mode call: the network's times; what is around it is in parts.
nlohmann::json side(const hiresvit_info& info, const Times& times) {
  Samples sorted = times.network;
  std::sort(sorted.begin(), sorted.end());
  const double count = static_cast<double>(sorted.size());
  const double mean = std::accumulate(sorted.begin(), sorted.end(), 0.0) / count;
  double squares = 0;
  for (const double sample : sorted) squares += (sample - mean) * (sample - mean);
  const double deviation = sorted.size() > 1 ? std::sqrt(squares / (count - 1)) : 0;
  std::vector<std::int64_t> nanoseconds;
  for (const double sample : times.network) nanoseconds.push_back(std::max<std::int64_t>(1, std::llround(1e6 * sample)));
  return {{"calls", sorted.size()},
          {"min_ms", sorted.front()},
          {"max_ms", sorted.back()},
          {"mean_ms", mean},
          {"median_ms", median(sorted)},
          {"p90_ms", percentile(sorted, 90)},
          {"p95_ms", percentile(sorted, 95)},
          {"p99_ms", percentile(sorted, 99)},
          {"std_ms", deviation},
          {"cv_percent", 100 * deviation / mean},
          {"throughput", 1000 / mean},
          {"warnings", nlohmann::json::array()},
          {"samples_ns", nanoseconds},
          {"h2d_ms", median_or_null(times.h2d)},
          {"d2h_ms", median_or_null(times.d2h)},
          {"gpu_compute_ms", median_or_null(times.compute)},
          {"parts", {{"prepare", median(times.prepare)}, {"network", median(sorted)}, {"answer", median(times.answer)}}},
          {"origin", {{"role", info.graph}, {"backend", info.backend}, {"emulated", info.emulated != 0}}},
          {"failure", nullptr}};
}

void print_json(const hiresvit_info& info, const Times& times) {
  const std::string name = std::string(info.model) + " (" + info.graph + ", " + info.backend + ")";
  const nlohmann::json document{{"schema_version", 1},
                                {"latency",
                                 {{"threads", nullptr},
                                  {"mode", "call"},
                                  {"complete", true},
                                  {"sides", {{name, side(info, times)}}},
                                  {"ratios", nlohmann::json::object()},
                                  {"power", nullptr}}}};
  std::printf("%s\n", document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

}  // namespace

void bench(hiresvit::Engine& engine, const hiresvit::Picture& picture, hiresvit::Answer answer, int frames, bool json) {
  const Times times = measure(engine, picture, answer, frames);
  if (json) return print_json(engine.info(), times);
  std::printf("Throughput: %.4f qps\n", frames_per_second(engine, picture, answer, frames));
  print("Latency", times.network);
  if (!times.compute.empty()) {
    print("Enqueue Time", times.enqueue);
    print("H2D Latency", times.h2d);
    print("GPU Compute Time", times.compute);
    print("D2H Latency", times.d2h);
  }
  print("Frame Time", times.whole);
  std::printf("Frame: prepare (resize, normalise, copy) = %.3f ms, network = %.3f ms, labels = %.3f ms, whole = %.3f ms"
              " (medians of %d frames, one after the other; the throughput is of two under way)\n",
              median(times.prepare), median(times.network), median(times.answer), median(times.whole), frames);
}
