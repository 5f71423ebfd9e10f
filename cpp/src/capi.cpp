// The C ABI over the engine: arguments are checked here, and no exception leaves.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>

#include "engine.hpp"
#include "error.hpp"
#include "hiresvit/hiresvit.h"

#ifndef HIRESVIT_VERSION
#error "HIRESVIT_VERSION is the build system's to set"
#endif

struct hiresvit_engine {
  hiresvit::Engine engine;
};

namespace {

using namespace hiresvit;

static_assert(HIRESVIT_NV12 == static_cast<int>(Pixels::nv12) && HIRESVIT_BGRA == static_cast<int>(Pixels::bgra));
static_assert(HIRESVIT_BT709_FULL == static_cast<int>(Yuv::bt709_full));
static_assert(HIRESVIT_BT601 == static_cast<int>(Yuv::bt601));
static_assert(HIRESVIT_F32 == static_cast<int>(Type::f32) && HIRESVIT_I64 == static_cast<int>(Type::i64));
static_assert(HIRESVIT_I64 == static_cast<int>(LabelType::i64) && HIRESVIT_U8 == static_cast<int>(LabelType::u8));
static_assert(HIRESVIT_FEATURES == static_cast<int>(Task::features));
static_assert(HIRESVIT_DETECT == static_cast<int>(Task::detect) && HIRESVIT_MASKS == static_cast<int>(Task::masks));
static_assert(HIRESVIT_CAMERA == static_cast<int>(ContractName::camera));
static_assert(HIRESVIT_DAMAGED == kDamaged && HIRESVIT_BUSY == kBusy && HIRESVIT_ILLEGAL_GRAPH == kIllegalGraph);

thread_local char last_error[1024];

int remember(int code, const char* text) noexcept {
  std::snprintf(last_error, sizeof last_error, "%s", text);
  return code;
}

template <class Work>
int guarded(const Work& work) noexcept {
  try {
    work();
    return HIRESVIT_OK;
  } catch (const Error& error) {
    return remember(error.code, error.what());
  } catch (const std::bad_alloc&) {
    return remember(HIRESVIT_FAILED, "the memory is used up; give smaller pictures or close other engines");
  } catch (const std::exception& error) {
    return remember(HIRESVIT_FAILED, error.what());
  } catch (...) {
    return remember(HIRESVIT_FAILED, "something failed that says nothing of itself");
  }
}

// Any handle that is none: closed, or never opened.
template <class Handle>
Handle& given(Handle* engine) {
  if (engine == nullptr) throw Error(kUsage, "the engine is NULL: it was closed, or opening it failed");
  return *engine;
}

// A caller's structure as this library knows it: what the caller's is too short for is zero.
template <class Struct>
Struct known(const Struct* from, const char* name, std::size_t least) {
  if (from == nullptr) throw Error(kUsage, std::string(name) + " is NULL");
  if (from->struct_size < least) {
    throw Error(kUsage, std::string(name) + ".struct_size is " + std::to_string(from->struct_size) +
                            ": set it to sizeof(" + name + ")");
  }
  if (from->struct_size > 4096) {
    throw Error(kUsage, std::string(name) + ".struct_size is not set: set it to sizeof(" + name + ")");
  }
  const char* const bytes = reinterpret_cast<const char*>(from);
  if (std::any_of(bytes + std::min(sizeof(Struct), from->struct_size), bytes + from->struct_size,
                  [](char byte) { return byte != 0; })) {
    throw Error(kUsage, std::string(name) + " asks what hiresvit " HIRESVIT_VERSION
                                            " does not know: take the library that belongs to your headers");
  }
  Struct to{};
  std::memcpy(&to, from, std::min(from->struct_size, sizeof to));
  return to;
}

// Gives it back: no more than the caller has, whose size stays what it is.
template <class Struct>
void fill(Struct* to, Struct from) {
  from.struct_size = to->struct_size;
  std::memcpy(to, &from, std::min(from.struct_size, sizeof from));
}

EngineOptions options_of(const hiresvit_options* from) {
  EngineOptions options;
  if (from == nullptr) return options;
  const hiresvit_options own = known(from, "hiresvit_options", offsetof(hiresvit_options, backend));
  const auto text = [](const char* value) { return std::string(value != nullptr ? value : ""); };
  options.graph = text(own.graph), options.backend = text(own.backend);
  options.golden = own.skip_golden == 0;
  if (own.threads < 0 || own.threads > 1024) {
    throw Error(kUsage, "threads is " + std::to_string(own.threads) + "; 1 to 1024, or 0 for as many as there are");
  }
  options.runtime.library = text(own.library);
  options.runtime.threads = own.threads;
  options.runtime.cuda_graph = own.cuda_graph != 0;
  options.runtime.device = own.device;
  options.runtime.stream = own.stream;
  options.runtime.host_code = own.host_code != 0;
  options.context = text(own.context), options.runtime.provider = text(own.provider);
  options.runtime.soc_model = own.soc_model;
  return options;
}

Picture picture_of(const hiresvit_picture* from) {
  const hiresvit_picture own = known(from, "hiresvit_picture", sizeof(hiresvit_picture));
  if (own.pixels < HIRESVIT_RGB || own.pixels > HIRESVIT_NV12) {
    throw Error(kBadInput, "pixels is " + std::to_string(own.pixels) + ": HIRESVIT_RGB to HIRESVIT_NV12");
  }
  if (own.yuv < HIRESVIT_YUV_NONE || own.yuv > HIRESVIT_BT709_FULL) {
    throw Error(kBadInput, "yuv is " + std::to_string(own.yuv) + ": HIRESVIT_YUV_NONE to HIRESVIT_BT709_FULL");
  }
  Picture picture;
  picture.pixels = static_cast<Pixels>(own.pixels), picture.yuv = static_cast<Yuv>(own.yuv);
  picture.height = own.height, picture.width = own.width;
  const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(own.width) * channels(picture.pixels);
  for (int plane = 0; plane < 2; ++plane) {
    picture.planes[plane] = own.planes[plane];
    picture.strides[plane] = own.strides[plane] != 0 ? own.strides[plane] : row;
  }
  return picture;
}

Answer answer_of(const hiresvit_answer& own) {
  if (own.label_type != HIRESVIT_U8 && own.label_type != HIRESVIT_I32 && own.label_type != HIRESVIT_I64) {
    throw Error(kUsage,
                "label_type is " + std::to_string(own.label_type) + ": HIRESVIT_U8, HIRESVIT_I32 or HIRESVIT_I64");
  }
  const std::ptrdiff_t bytes = own.label_type == HIRESVIT_U8 ? 1 : own.label_type == HIRESVIT_I32 ? 4 : 8;
  if (own.stride % bytes != 0 || reinterpret_cast<std::uintptr_t>(own.labels) % static_cast<std::size_t>(bytes) != 0) {
    throw Error(kUsage, "the labels' address and stride must be multiples of " + std::to_string(bytes) + " bytes");
  }
  Answer answer;
  answer.size = {own.height, own.width};
  answer.labels.type = static_cast<LabelType>(own.label_type);
  answer.labels.labels = own.labels;
  answer.labels.stride = own.stride != 0 ? own.stride / bytes : own.width;
  answer.labels.confidence = own.confidence;
  answer.labels.confidence_stride = own.confidence_stride != 0 ? own.confidence_stride : own.width;
  answer.k = own.k, answer.classes = own.classes, answer.probabilities = own.probabilities;
  answer.boxes = own.boxes;
  return answer;
}

constexpr std::size_t kLeastAnswer = offsetof(hiresvit_answer, boxes);  // as it was before there were boxes

void wait_for(Engine& engine, hiresvit_answer* answer) {
  hiresvit_answer own = known(answer, "hiresvit_answer", kLeastAnswer);
  Answer wanted = answer_of(own);
  engine.wait(wanted);
  own.k = wanted.k;
  fill(answer, own);
}

}  // namespace

const char* hiresvit_version(void) { return HIRESVIT_VERSION; }

const char* hiresvit_last_error(void) { return last_error; }

int hiresvit_open(const char* bundle, const hiresvit_options* options, hiresvit_engine** engine) {
  return guarded([&] {
    if (engine == nullptr) throw Error(kUsage, "there is no place for the engine: `engine` is NULL");
    *engine = nullptr;
    if (bundle == nullptr || *bundle == '\0') throw Error(kUsage, "no bundle is given: its folder's path is needed");
    *engine = new hiresvit_engine{Engine(std::string(bundle), options_of(options))};
  });
}

void hiresvit_close(hiresvit_engine** engine) {
  if (engine == nullptr) return;
  delete *engine;
  *engine = nullptr;
}

int hiresvit_describe(const hiresvit_engine* engine, hiresvit_info* info) {
  return guarded([&] {
    const Engine& own = given(engine).engine;
    hiresvit_info to = known(info, "hiresvit_info", sizeof(std::size_t));
    const Manifest& manifest = own.manifest();
    to.model = manifest.spec.name.c_str();
    to.graph = own.role().c_str();
    to.backend = own.backend().about().c_str();
    to.task = static_cast<int>(manifest.spec.task);
    to.contract = static_cast<int>(manifest.contract.name);
    to.pixels = static_cast<int>(manifest.contract.pixels), to.yuv = static_cast<int>(manifest.contract.yuv);
    to.network_height = manifest.spec.imgsz.height, to.network_width = manifest.spec.imgsz.width;
    const bool camera = manifest.contract.name == ContractName::camera;
    to.camera_height = camera ? manifest.contract.size->height : 0;
    to.camera_width = camera ? manifest.contract.size->width : 0;
    to.num_classes = manifest.spec.num_classes;
    to.named_classes = manifest.labels ? static_cast<int>(manifest.labels->names.size()) : 0;
    to.most_classes = own.most_classes();
    to.has_confidence = manifest.spec.task == Task::segment &&
                        (manifest.contract.name == ContractName::tensor || manifest.contract.confidence);
    to.outputs = static_cast<int>(own.backend().outputs().size());
    to.emulated = own.backend().emulated() ? 1 : 0;
    to.most_boxes = own.most_boxes();
    fill(info, to);
  });
}

int hiresvit_class(const hiresvit_engine* engine, int32_t index, const char** name, uint8_t rgb[3]) {
  return guarded([&] {
    const Manifest& manifest = given(engine).engine.manifest();
    if (!manifest.labels) throw Error(kUsage, "this bundle does not know its classes: export it with --classes");
    const std::size_t count = std::min(manifest.labels->names.size(), manifest.labels->colours.size());
    if (index < 0 || static_cast<std::size_t>(index) >= count) {
      throw Error(kUsage, "class " + std::to_string(index) + ": 0 to " + std::to_string(count) + " - 1 are there");
    }
    const std::size_t place = static_cast<std::size_t>(index);
    if (name != nullptr) *name = manifest.labels->names[place].c_str();
    if (rgb != nullptr) std::copy_n(manifest.labels->colours[place].begin(), 3, rgb);
  });
}

int hiresvit_submit(hiresvit_engine* engine, const hiresvit_picture* picture) {
  return guarded([&] { given(engine).engine.submit(picture_of(picture)); });
}

int hiresvit_wait(hiresvit_engine* engine, hiresvit_answer* answer) {
  return guarded([&] { wait_for(given(engine).engine, answer); });
}

int hiresvit_run(hiresvit_engine* engine, const hiresvit_picture* picture, hiresvit_answer* answer) {
  return guarded([&] {
    Engine& own = given(engine).engine;
    hiresvit_answer mine = known(answer, "hiresvit_answer", kLeastAnswer);
    Answer wanted = answer_of(mine);
    own.run(picture_of(picture), wanted);
    mine.k = wanted.k;
    fill(answer, mine);
  });
}

int hiresvit_pending(const hiresvit_engine* engine, int32_t* height, int32_t* width) {
  if (engine == nullptr) return 0;
  const Size size = engine->engine.next_size();
  if (height != nullptr) *height = size.height;
  if (width != nullptr) *width = size.width;
  return engine->engine.pending();
}

int hiresvit_output(const hiresvit_engine* engine, int32_t index, hiresvit_tensor* tensor) {
  return guarded([&] {
    const Engine& own = given(engine).engine;
    hiresvit_tensor to = known(tensor, "hiresvit_tensor", sizeof(hiresvit_tensor));
    const std::vector<TensorInfo>& outputs = own.backend().outputs();
    if (index < 0 || static_cast<std::size_t>(index) >= outputs.size()) {
      throw Error(kUsage, "output " + std::to_string(index) + ": this graph has " + std::to_string(outputs.size()));
    }
    const TensorInfo& info = outputs[static_cast<std::size_t>(index)];
    to.data = own.output(static_cast<std::size_t>(index));
    if (to.data == nullptr) throw Error(kUsage, "no frame was waited for, or another was submitted since");
    if (info.shape.size() > std::size(to.shape)) throw Error(kUsage, "output " + info.name + " has more than 8 axes");
    to.name = info.name.c_str(), to.bytes = info.bytes, to.type = static_cast<int>(info.type);
    to.rank = static_cast<int>(info.shape.size());
    std::copy(info.shape.begin(), info.shape.end(), to.shape);
    fill(tensor, to);
  });
}

int hiresvit_last_times(const hiresvit_engine* engine, hiresvit_times* times) {
  return guarded([&] {
    const Engine& own = given(engine).engine;
    hiresvit_times to = known(times, "hiresvit_times", sizeof(std::size_t));
    to.prepare = own.times().prepare, to.network = own.times().network, to.answer = own.times().answer;
    GpuTimes gpu;
    to.on_gpu = own.gpu_times(gpu) ? 1 : 0;
    to.enqueue = gpu.enqueue, to.h2d = gpu.h2d, to.compute = gpu.compute, to.d2h = gpu.d2h;
    fill(times, to);
  });
}
