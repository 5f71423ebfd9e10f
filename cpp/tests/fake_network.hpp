// A network of the contracts image or camera that answers with a pixel's red, in a thread of its own as a runtime does.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

#include "engine.hpp"
#include "error.hpp"

constexpr int kSide = 8;

class FakeNetwork final : public hiresvit::Backend {
 public:
  explicit FakeNetwork(int sleep_ms = 0) : sleep_ms_(sleep_ms) {
    inputs_ = {{"image", hiresvit::Type::u8, {1, kSide, kSide, 3}, kSide * kSide * 3}};
    outputs_ = {{"labels", hiresvit::Type::u8, {1, kSide, kSide}, kSide * kSide}};
    worker_ = std::thread([this] { work(); });
  }
  ~FakeNetwork() override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    worker_.join();
  }
  const std::vector<hiresvit::TensorInfo>& inputs() const override { return inputs_; }
  const std::vector<hiresvit::TensorInfo>& outputs() const override { return outputs_; }
  void* input(int slot, std::size_t) override { return in_[slot]; }
  const void* output(int slot, std::size_t) override { return out_[slot]; }
  const std::string& about() const override { return about_; }
  void submit(int slot) override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      waiting_[slot] = true;
      queue_.push_back(slot);
    }
    changed_.notify_all();
  }
  void wait(int slot) override {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return !waiting_[slot]; });
    if (fail_next) {
      fail_next = false;
      throw hiresvit::Error(hiresvit::kFailed, "the network failed");
    }
  }
  bool fail_next = false;

 private:
  void work() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
      if (stop_) return;
      const int slot = queue_.front();
      queue_.pop_front();
      lock.unlock();
      std::this_thread::sleep_for(std::chrono::milliseconds(sleep_ms_));
      for (int pixel = 0; pixel < kSide * kSide; ++pixel) out_[slot][pixel] = in_[slot][3 * pixel];
      lock.lock();
      waiting_[slot] = false;
      changed_.notify_all();
    }
  }

  int sleep_ms_;
  std::vector<hiresvit::TensorInfo> inputs_, outputs_;
  std::string about_ = "a fake";
  std::uint8_t in_[2][kSide * kSide * 3]{};
  std::uint8_t out_[2][kSide * kSide]{};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool waiting_[2] = {false, false};
  std::deque<int> queue_;
  bool stop_ = false;
  std::thread worker_;
};

inline hiresvit::Manifest fake_manifest(hiresvit::ContractName name) {
  hiresvit::Manifest manifest;
  manifest.folder = "fake";
  manifest.spec.name = "fake";
  manifest.spec.task = hiresvit::Task::segment;
  manifest.spec.imgsz = {kSide, kSide};
  manifest.spec.num_classes = 256;
  manifest.contract.name = name;
  manifest.contract.size = hiresvit::Size{kSide, kSide};
  manifest.contract.label_type = hiresvit::LabelType::u8;
  manifest.inputs = {{"image", "uint8", {1, kSide, kSide, 3}}};
  manifest.outputs = {{"labels", "uint8", {1, kSide, kSide}}};
  manifest.files.push_back({"cpu.onnx", "cpu", "", 0, std::nullopt, std::nullopt});
  return manifest;
}

inline hiresvit::EngineOptions fake_options() {
  hiresvit::EngineOptions options;
  options.golden = false;
  options.runtime.threads = 2;
  return options;
}
