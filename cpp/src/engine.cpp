#include "engine.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "context.hpp"
#include "contract.hpp"
#include "error.hpp"
#include "half.hpp"
#include "replay.hpp"

namespace hiresvit {
namespace {

constexpr unsigned kDepth = 2;

double now() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string text(Size size) { return std::to_string(size.height) + "x" + std::to_string(size.width); }

class Turn {
 public:
  explicit Turn(std::atomic_flag& busy) : busy_(busy) {
    if (busy_.test_and_set(std::memory_order_acquire)) {
      throw Error(kBusy, "another thread is using this engine: open one for each thread, or put a lock around it");
    }
  }
  ~Turn() { busy_.clear(std::memory_order_release); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  std::atomic_flag& busy_;
};

bool is_plan(const std::string& role) { return role == "plan" || role == "int8_plan"; }

std::string choose_backend(const EngineOptions& options) {
  const std::string& asked = options.backend;
  if (!options.context.empty() && (!options.graph.empty() || asked == "tensorrt")) {
    throw Error(kUsage, "a context runs in place of a graph, by ONNX Runtime: leave graph out, and backend tensorrt");
  }
  if (asked.empty()) return is_plan(options.graph) ? "tensorrt" : "onnxruntime";
  if (asked != "onnxruntime" && asked != "tensorrt") {
    throw Error(kUsage, "backend " + shown(asked, 40) + ": one of onnxruntime, tensorrt");
  }
  if (!options.graph.empty() && is_plan(options.graph) != (asked == "tensorrt")) {
    throw Error(kUsage, "backend " + asked + " does not run " + shown(options.graph, 40) +
                            "; onnxruntime runs graphs, tensorrt plan and int8_plan");
  }
  return asked;
}

std::string choose_role(const Manifest& manifest, const EngineOptions& options, const std::string& backend) {
  static const std::vector<std::string> graphs{"cpu", "simplified", "fp32", "fp16", "int8"};
  static const std::vector<std::string> plans{"plan", "int8_plan"};
  const std::vector<std::string>& fitting = backend == "tensorrt" ? plans : graphs;
  if (!options.graph.empty()) {
    if (std::find(fitting.begin(), fitting.end(), options.graph) == fitting.end()) {
      throw Error(kUsage, "graph " + shown(options.graph, 40) +
                              ": one of cpu, simplified, fp32, fp16, int8, plan, int8_plan");
    }
    return options.graph;
  }
  for (const std::string& role : fitting) {
    if (manifest.find(role) != nullptr) return role;
  }
  return fitting.front();  // Manifest::path says what there is
}

std::unique_ptr<Backend> open_backend(const Manifest& manifest, const std::string& role, const EngineOptions& options) {
  const std::string path = manifest.path(role);
  return is_plan(role) ? open_tensorrt(path, options.runtime) : open_onnxruntime(path, options.runtime);
}

}  // namespace

struct Engine::Chosen {
  Manifest manifest;
  std::string role;
  std::unique_ptr<Backend> backend;
};

Engine::Chosen Engine::choose(const std::string& folder, const EngineOptions& options) {
  const std::string backend = choose_backend(options);
  struct stat about {};
  if (::stat(folder.c_str(), &about) != 0 || !S_ISDIR(about.st_mode)) {
    throw Error(kBadInput, shown(folder) + " is not a bundle folder; give one that `hiresvit export` wrote");
  }
  Chosen chosen;
  chosen.manifest = read_bundle(folder);
  if (!options.context.empty()) {
    const Context context = read_context(options.context);
    if (chosen.manifest.find(context.stage) == nullptr) {
      throw Error(kUsage, shown(options.context, 1000) + " was compiled from " +
                              (context.stage.empty() ? "no graph of a bundle" : context.stage) + ", and " +
                              shown(folder) + " has none: give the bundle that it was built from");
    }
    chosen.role = context.stage;
    chosen.backend = open_context(options.context, context, options.runtime);
    return chosen;
  }
  chosen.role = choose_role(chosen.manifest, options, backend);
  chosen.backend = open_backend(chosen.manifest, chosen.role, options);
  return chosen;
}

Engine::Engine(const std::string& folder, const EngineOptions& options) : Engine(choose(folder, options), options) {}

Engine::Engine(Chosen chosen, const EngineOptions& options)
    : Engine(std::move(chosen.manifest), std::move(chosen.role), std::move(chosen.backend), options) {}

Engine::Engine(Manifest manifest, std::string role, std::unique_ptr<Backend> backend, const EngineOptions& options)
    : manifest_(std::move(manifest)),
      role_(std::move(role)),
      threads_(options.runtime.threads),
      backend_(std::move(backend)),
      preprocess_(manifest_.spec.preprocess, manifest_.spec.imgsz, threads_),
      postprocess_(manifest_.spec.preprocess, manifest_.spec.imgsz, threads_) {
  check_task();
  check_contract(manifest_, role_, *backend_);
  if (options.golden) replay_golden(manifest_, role_, *backend_);
  const ModelSpec& spec = manifest_.spec;
  if (spec.task == Task::classify) {
    const ContractSpec& contract = manifest_.contract;
    most_classes_ = contract.name == ContractName::tensor ? spec.num_classes : contract.top_k.value_or(0);
    const std::size_t count = static_cast<std::size_t>(std::max(spec.num_classes, most_classes_));
    scratch_.resize(count), probabilities_.resize(count), classes_.resize(count);
  }
  if (spec.anchors) {
    boxes_.emplace(*spec.anchors, spec.num_classes, spec.preprocess, spec.imgsz);
    box_maps_.reserve(spec.anchors->strides.size());
  }
  if (manifest_.contract.name == ContractName::tensor && backend_->inputs()[0].type == Type::f16) {
    normalised_.resize(backend_->inputs()[0].bytes / sizeof(std::uint16_t));
  }
}

void Engine::check_task() const {
  const ModelSpec& spec = manifest_.spec;
  if (spec.preprocess.resize == Resize::slide) {
    throw Error(kUsage, manifest_.folder + ": resize=slide takes many windows a frame, which this engine does not;"
                                           " export it with another resize, or use hiresvit.Predictor");
  }
  const bool whole = spec.task == Task::segment || spec.task == Task::detect;
  if (whole && spec.preprocess.resize == Resize::crop) {
    throw Error(kUsage, manifest_.folder + ": resize=crop leaves pixels without an answer; stretch the picture or keep"
                                           " its shape");
  }
  if ((spec.task == Task::masks || spec.task == Task::detect) && manifest_.contract.name != ContractName::tensor) {
    throw Error(kDamaged, manifest_.folder + ": the tasks masks and detect have the contract tensor and no other;"
                                             " export it again");
  }
}

void Engine::submit(const Picture& picture) {
  const Turn turn(busy_);
  begin(picture);
}

void Engine::wait(Answer& answer) {
  const Turn turn(busy_);
  finish(answer);
}

void Engine::run(const Picture& picture, Answer& answer) {
  const Turn turn(busy_);
  if (submitted_ != waited_) throw Error(kUsage, "a frame is under way: wait for it before you run another");
  check_picture(picture);
  check_answer(answer, {picture.height, picture.width});
  begin(picture);
  finish(answer);
}

void Engine::begin(const Picture& picture) {
  if (submitted_ - waited_ == kDepth) {
    throw Error(kUsage, "two frames are under way, which is the most: wait for one before you submit the next");
  }
  const double begun = now();
  check_picture(picture);
  if (submitted_ == waited_) submitted_ = waited_ = 0;  // whoever runs one at a time has the memory of one
  const int slot = static_cast<int>(submitted_ % kDepth);
  prepare(picture, slot);
  if (slot == last_) last_ = -1;  // its output is not that frame's any more
  const double ready = now();
  frames_[slot] = {{picture.height, picture.width}, ready - begun, ready};
  backend_->submit(slot);
  ++submitted_;
}

void Engine::prepare(const Picture& picture, int slot) {
  const ContractSpec& contract = manifest_.contract;
  if (contract.name == ContractName::tensor) {
    void* const input = backend_->input(slot, 0);
    if (normalised_.empty()) {
      preprocess_.tensor(picture, static_cast<float*>(input));
      return;
    }
    preprocess_.tensor(picture, normalised_.data());
    std::transform(normalised_.begin(), normalised_.end(), static_cast<std::uint16_t*>(input), to_half);
    return;
  }
  const bool nv12 = contract.pixels == Pixels::nv12;
  const std::ptrdiff_t row = contract.size->width * channels(contract.pixels);
  std::uint8_t* planes[2] = {nullptr, nullptr};
  const std::ptrdiff_t strides[2] = {row, nv12 ? row : 0};
  for (std::size_t index = 0; index < backend_->inputs().size(); ++index) {
    const std::size_t plane = backend_->inputs()[index].name == "uv" ? 1 : 0;
    planes[plane] = static_cast<std::uint8_t*>(backend_->input(slot, index));
  }
  if (contract.name == ContractName::image) {
    preprocess_.pixels(picture, contract.pixels, contract.yuv, planes, strides);
    return;
  }
  const Size size{picture.height, picture.width};
  if (size != *contract.size) {
    throw Error(kUsage, "the picture is " + text(size) + "; this bundle is made for a camera of " +
                            text(*contract.size) + ": export one for this size, or with --contract image or tensor, which take any");
  }
  convert_pixels(picture, contract.pixels, contract.yuv, planes, strides, threads_);
}

Size Engine::next_size() const {
  return submitted_ == waited_ ? Size{} : frames_[waited_ % kDepth].size;
}

void Engine::finish(Answer& answer) {
  if (submitted_ == waited_) throw Error(kUsage, "no frame is under way: submit one before you wait");
  const int slot = static_cast<int>(waited_ % kDepth);
  const Frame& frame = frames_[slot];
  check_answer(answer, frame.size);
  ++waited_;
  last_ = -1;
  backend_->wait(slot);
  const double answered = now();
  last_ = slot;
  if (answer.labels.labels != nullptr) answer_labels(answer, slot, frame.size);
  if (manifest_.spec.task == Task::classify) answer_classes(answer, slot);
  if (manifest_.spec.task == Task::detect) answer_boxes(answer, slot, frame.size);
  times_ = {frame.prepared, answered - frame.submitted, now() - answered};
}

void Engine::check_answer(const Answer& answer, Size size) const {
  const ModelSpec& spec = manifest_.spec;
  const LabelsOut& labels = answer.labels;
  if ((labels.labels != nullptr || labels.confidence != nullptr) && spec.task != Task::segment) {
    throw Error(kUsage, "labels are asked of a model that does not segment");
  }
  if (answer.k > 0 && spec.task != Task::classify && spec.task != Task::detect) {
    throw Error(kUsage, "classes or boxes are asked of a model that neither classifies nor detects");
  }
  if (answer.boxes != nullptr && spec.task != Task::detect) {
    throw Error(kUsage, "boxes are asked of a model that does not detect");
  }
  if (answer.k < 0) throw Error(kUsage, "k is " + std::to_string(answer.k) + "; at least 0 is needed");
  if (labels.labels == nullptr) {
    if (labels.confidence != nullptr) throw Error(kUsage, "a confidence is asked without labels: give both");
    return;
  }
  if (answer.size != size) {
    throw Error(kUsage, "the label map is " + text(answer.size) + ", the picture was " + text(size) +
                            ": they must be of one size");
  }
  if (labels.stride < size.width || (labels.confidence != nullptr && labels.confidence_stride < size.width)) {
    throw Error(kUsage, "a stride of the answer is shorter than a row of " + std::to_string(size.width) + " labels");
  }
  if (labels.type == LabelType::u8 && spec.num_classes > 256) {
    throw Error(kUsage, std::to_string(spec.num_classes) + " classes do not fit into uint8 labels: ask for int32");
  }
  const bool sure = manifest_.contract.name == ContractName::tensor || manifest_.contract.confidence;
  if (labels.confidence != nullptr && !sure) {
    throw Error(kUsage, "this bundle gives no confidence: export it with --confidence");
  }
}

const void* Engine::output(std::size_t index) const {
  return last_ < 0 || index >= backend_->outputs().size() ? nullptr : backend_->output(last_, index);
}

bool Engine::gpu_times(GpuTimes& out) const { return last_ >= 0 && backend_->times(last_, out); }

}  // namespace hiresvit
