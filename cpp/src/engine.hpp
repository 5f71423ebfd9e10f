// A bundle that is loaded: pictures in, labels, classes or boxes out.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend.hpp"
#include "boxes.hpp"
#include "manifest.hpp"
#include "postprocess.hpp"
#include "preprocess.hpp"
#include "threads.hpp"

namespace hiresvit {

struct EngineOptions {
  std::string graph;    // a role of the bundle; empty: what the backend likes best
  std::string backend;  // "onnxruntime" or "tensorrt"; empty: what the graph needs, else ONNX Runtime
  std::string context;  // the ONNX file of a context that was compiled from a graph of the bundle: runs in its place
  BackendOptions runtime;
  bool golden = true;  // replay the golden pair when it is opened
};

// Where an answer goes; what is null is not made. `labels.stride` counts elements. Of `k` wanted classes or boxes `k` is
// set to those that there are.
struct Answer {
  Size size;  // of the label maps: the picture's
  LabelsOut labels;
  std::int32_t* classes = nullptr;
  float* probabilities = nullptr;
  Detection* boxes = nullptr;
  int k = 0;
};

// Of the last frame that was waited for, in milliseconds. `network` is from the submit to the answer: of two frames
// under way it includes the wait for the first.
struct FrameTimes {
  double prepare = 0, network = 0, answer = 0;
};

// Two frames may be under way. One thread at a time may call it; another one gets Error (busy) and has to come again.
class Engine {
 public:
  // Throws Error: damaged for a bundle that is, or whose golden pair does not come out; missing for a runtime or a
  // device; usage for options that cannot be served; illegal graph for one that the runtime does not take.
  Engine(const std::string& folder, const EngineOptions& options);
  // With a backend that is open already.
  Engine(Manifest manifest, std::string role, std::unique_ptr<Backend> backend, const EngineOptions& options);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Reads the picture, whose memory is the caller's again when it returns, and lets the network begin. Throws Error:
  // usage if two frames are under way or the contract does not take this picture, bad input for one that is none.
  void submit(const Picture& picture);

  // The answer to the oldest frame. Throws Error: usage without a frame, or if the answer's buffers are not what this
  // frame needs, and then the frame is still to be waited for; failed if the network or its answer did, and then not.
  void wait(Answer& answer);

  // Both in one turn. Throws as they do, and Error (usage) if a frame is under way.
  void run(const Picture& picture, Answer& answer);

  // How many frames are under way, and the size of the picture that `wait` answers next, zeros where there is none.
  int pending() const { return static_cast<int>(submitted_ - waited_); }
  Size next_size() const;

  const Manifest& manifest() const { return manifest_; }
  const std::string& role() const { return role_; }
  const Backend& backend() const { return *backend_; }
  // The raw output of the frame that was waited for last, as it is until the next submit; null before the first.
  const void* output(std::size_t index) const;
  const FrameTimes& times() const { return times_; }
  bool gpu_times(GpuTimes& out) const;
  int most_classes() const { return most_classes_; }  // that one answer can name
  int most_boxes() const { return manifest_.spec.anchors ? manifest_.spec.anchors->max_boxes : 0; }

 private:
  struct Frame {
    Size size;
    double prepared = 0;   // milliseconds that it took
    double submitted = 0;  // on the steady clock
  };
  struct Chosen;
  static Chosen choose(const std::string& folder, const EngineOptions& options);
  Engine(Chosen chosen, const EngineOptions& options);
  void begin(const Picture& picture);
  void finish(Answer& answer);
  void prepare(const Picture& picture, int slot);
  void check_answer(const Answer& answer, Size size) const;
  void answer_labels(const Answer& answer, int slot, Size size);
  void answer_classes(Answer& answer, int slot);
  void copy_classes(Answer& answer, int slot) const;
  void answer_boxes(Answer& answer, int slot, Size size);
  BoxMaps box_maps(int slot, int stride) const;
  std::size_t index_of(const std::string& output) const;
  void check_task() const;

  Manifest manifest_;
  std::string role_;
  Threads threads_;
  std::unique_ptr<Backend> backend_;
  Preprocess preprocess_;
  Postprocess postprocess_;
  std::array<Frame, 2> frames_{};
  unsigned submitted_ = 0, waited_ = 0;
  int last_ = -1;  // slot of the frame that was waited for last
  int most_classes_ = 0;
  std::vector<float> normalised_;  // for an FP16 input
  std::vector<double> scratch_, probabilities_;
  std::vector<std::int32_t> classes_;
  std::optional<Boxes> boxes_;
  std::vector<BoxMaps> box_maps_;
  FrameTimes times_;
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
};

}  // namespace hiresvit
