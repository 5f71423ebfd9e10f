// What the parts of a frame take here, in milliseconds: a picture of 1080p, a network of 512x1024.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "postprocess.hpp"
#include "preprocess.hpp"

using namespace hiresvit;

namespace {

template <class Work>
void time(const char* name, const Work& work) {
  std::vector<double> taken;
  const std::clock_t cpu = std::clock();
  for (int i = 0; i < 30; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    taken.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  const double used = 1000.0 * static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC / 30;
  std::sort(taken.begin(), taken.end());
  std::printf("%-44s median %6.2f   least %6.2f   of all cores %6.2f\n", name, taken[taken.size() / 2], taken.front(),
              used);
}

// A street's worth of regions: `classes` smooth waves.
std::vector<float> waves(int classes, int height, int width) {
  std::vector<float> logits;
  logits.reserve(static_cast<std::size_t>(classes) * static_cast<std::size_t>(height * width));
  for (int k = 0; k < classes; ++k) {
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const float v = static_cast<float>(y) / static_cast<float>(height),
                    u = static_cast<float>(x) / static_cast<float>(width);
        const float a = static_cast<float>(k);
        logits.push_back(8 * std::sin((6 + a) * u + a * 1.7f) * std::cos((5 + 0.7f * a) * v + a * 2.3f));
      }
    }
  }
  return logits;
}

}  // namespace

int main(int count, char** words) {
  Threads threads(count > 1 ? std::atoi(words[1]) : 2);
  const Size camera{1080, 1920}, network{512, 1024};
  std::vector<std::uint8_t> pixels(packed_bytes(Pixels::rgba, camera.height, camera.width));
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i * 2654435761u >> 24);
  std::vector<float> input(3 * 512 * 1024);
  for (const Filter filter : {Filter::bilinear, Filter::bicubic, Filter::opencv}) {
    PreprocessSpec spec;
    spec.filter = filter;
    Preprocess preprocess(spec, network, threads);
    for (const Pixels layout : {Pixels::rgb, Pixels::bgr, Pixels::rgba, Pixels::nv12}) {
      const Picture picture = packed_picture(layout, Yuv::bt709, camera.height, camera.width, pixels.data());
      const std::string name = "tensor of " +
                               std::string(layout == Pixels::rgb    ? "rgb"
                                           : layout == Pixels::bgr  ? "bgr"
                                           : layout == Pixels::rgba ? "rgba"
                                                                    : "nv12") +
                               (filter == Filter::bilinear  ? " bilinear"
                                : filter == Filter::bicubic ? " bicubic"
                                                            : " opencv");
      time(name.c_str(), [&] { preprocess.tensor(picture, input.data()); });
    }
  }
  Postprocess postprocess(PreprocessSpec{}, network, threads);
  std::vector<std::uint8_t> labels(1080 * 1920), sure(1080 * 1920);
  const LabelsOut out{LabelType::u8, labels.data(), 1920, nullptr, 0};
  for (const int step : {4, 1}) {
    const int height = 512 / step, width = 1024 / step;
    const std::vector<float> logits = waves(19, height, width);
    const std::string shape = " 19x" + std::to_string(height) + "x" + std::to_string(width);
    time(("labels of" + shape).c_str(), [&] {
      postprocess.labels(Logits{logits.data(), false, 19, height, width, 0, 0}, camera, out);
    });
    std::vector<std::uint16_t> halves(logits.size(), 0x3c00);
    for (std::size_t i = 0; i < halves.size(); ++i)
      halves[i] = static_cast<std::uint16_t>(0x3000 + static_cast<int>(logits[i] * 100));
    time(("labels of halves" + shape).c_str(), [&] {
      postprocess.labels(Logits{halves.data(), true, 19, height, width, 0, 0}, camera, out);
    });
    std::vector<float> noise(logits.size());
    std::uint32_t state = 1;
    for (float& value : noise) value = static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) / 1e6f;
    time(("labels of noise" + shape).c_str(), [&] {
      postprocess.labels(Logits{noise.data(), false, 19, height, width, 0, 0}, camera, out);
    });
    const LabelsOut both{LabelType::u8, labels.data(), 1920, sure.data(), 1920};
    time(("labels and confidence of" + shape).c_str(), [&] {
      postprocess.labels(Logits{logits.data(), false, 19, height, width, 0, 0}, camera, both);
    });
  }
}
