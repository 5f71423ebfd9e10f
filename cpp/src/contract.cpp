#include "contract.hpp"

#include <algorithm>

#include "boxes.hpp"
#include "error.hpp"

namespace hiresvit {

const char* name_of(Type type) {
  switch (type) {
    case Type::u8: return "uint8";
    case Type::i32: return "int32";
    case Type::i64: return "int64";
    case Type::f16: return "float16";
    case Type::f32: break;
  }
  return "float32";
}

bool type_fits(const std::string& dtype, Type type) {
  return dtype == name_of(type) || (dtype == "float32" && type == Type::f16);
}

bool shape_fits(const std::vector<std::int64_t>& wanted, const std::vector<std::int64_t>& found) {
  return wanted.size() == found.size() &&
         std::equal(wanted.begin(), wanted.end(), found.begin(),
                    [](std::int64_t want, std::int64_t have) { return want < 0 || want == have; });
}

std::string in_words(const std::string& name, const char* dtype, const std::vector<std::int64_t>& shape) {
  std::string text = shown(name, 60) + " " + dtype + " [";
  for (const std::int64_t side : shape) text += (text.back() == '[' ? "" : ", ") + std::to_string(side);
  return text + "]";
}

std::size_t bytes_of(Type type) {
  return type == Type::u8 ? 1 : type == Type::f16 ? 2 : type == Type::i64 ? 8 : 4;
}

Type type_of(const std::string& dtype) {
  for (const Type type : {Type::u8, Type::i32, Type::i64, Type::f16}) {
    if (dtype == name_of(type)) return type;
  }
  return Type::f32;
}

namespace {

void check_side(const std::string& where, const char* verb, const std::vector<TensorSpec>& wanted,
                const std::vector<TensorInfo>& found) {
  bool fits = wanted.size() == found.size();
  std::string has;
  for (const TensorInfo& info : found) {
    has += (has.empty() ? "" : ", ") + in_words(info.name, name_of(info.type), info.shape);
    fits = fits && std::any_of(wanted.begin(), wanted.end(), [&](const TensorSpec& spec) {
             return spec.name == info.name && type_fits(spec.dtype, info.type) && shape_fits(spec.shape, info.shape);
           });
  }
  if (fits) return;
  std::string says;
  for (const TensorSpec& spec : wanted) {
    says += (says.empty() ? "" : ", ") + in_words(spec.name, shown(spec.dtype).c_str(), spec.shape);
  }
  throw Error(kDamaged, where + " " + verb + " " + has + ", and its manifest says " + says + "; export it again");
}

using Shape = std::vector<std::int64_t>;

// Maps and queries that an app reads itself, of any shape.
bool is_raw(Task task) { return task == Task::features || task == Task::masks; }

std::string of_stride(const char* kind, int stride) { return kind + std::string("_") + std::to_string(stride); }

Shape map_shape(const ModelSpec& spec, const std::string& name) {
  const std::vector<int>& strides = spec.anchors->strides;
  const auto is = [&](const char* kind) {
    return std::find_if(strides.begin(), strides.end(), [&](int stride) { return of_stride(kind, stride) == name; });
  };
  const bool scores = is("logits") != strides.end();
  const auto stride = scores ? is("logits") : is("deltas");
  if (stride == strides.end()) return {};
  const Size map = map_size(spec.imgsz, *stride);
  return {1, std::int64_t{spec.anchors->per_cell()} * (scores ? spec.num_classes : 4), map.height, map.width};
}

// What the engine takes every byte of: the shape that a tensor has by the model's and the contract's sizes.
Shape needed_shape(const Manifest& manifest, const TensorInfo& info) {
  const ModelSpec& spec = manifest.spec;
  const ContractSpec& contract = manifest.contract;
  const Size size = contract.size.value_or(spec.imgsz);
  if (contract.name == ContractName::image && size != spec.imgsz) return {};
  if (contract.name == ContractName::tensor) {
    if (info.name == "image") return {1, 3, spec.imgsz.height, spec.imgsz.width};
    if (spec.task == Task::detect) return map_shape(spec, info.name);
    if (info.name != "logits") return {};
    if (spec.task == Task::classify) return {1, spec.num_classes};
    return info.shape.size() == 4 ? Shape{1, spec.num_classes, info.shape[2], info.shape[3]} : Shape{};
  }
  if (info.name == "image") return {1, size.height, size.width, channels(contract.pixels)};
  if (info.name == "uv") return {1, size.height / 2, size.width / 2, 2};
  if (info.name == "y" || info.name == "labels" || info.name == "confidence") return {1, size.height, size.width};
  if (info.name == "classes" || info.name == "probabilities") return {1, contract.top_k.value_or(0)};
  return {};
}

std::vector<std::string> needed_outputs(const Manifest& manifest) {
  const bool tensor = manifest.contract.name == ContractName::tensor;
  switch (manifest.spec.task) {
    case Task::segment:
      if (tensor) return {"logits"};
      return manifest.contract.confidence ? std::vector<std::string>{"labels", "confidence"}
                                          : std::vector<std::string>{"labels"};
    case Task::classify:
      return tensor ? std::vector<std::string>{"logits"} : std::vector<std::string>{"classes", "probabilities"};
    case Task::masks: return {"classes", "masks"};
    case Task::detect: {
      std::vector<std::string> names;
      for (const int stride : manifest.spec.anchors->strides) {
        names.push_back(of_stride("logits", stride)), names.push_back(of_stride("deltas", stride));
      }
      return names;
    }
    case Task::features: break;
  }
  return {};
}

void need(const std::string& where, const std::vector<std::string>& names, const std::vector<TensorInfo>& found,
          bool others) {
  for (const std::string& name : names) {
    if (std::none_of(found.begin(), found.end(), [&](const TensorInfo& info) { return info.name == name; })) {
      throw Error(kDamaged, where + " has no " + name + ", which its contract has; export it again");
    }
  }
  if (!others && found.size() != names.size()) {
    throw Error(kDamaged, where + " has more tensors than its contract; export it again");
  }
}

}  // namespace

void check_contract(const Manifest& manifest, const std::string& role, const Backend& backend) {
  const std::string where = manifest.path(role);
  check_side(where, "takes", manifest.inputs, backend.inputs());
  check_side(where, "gives", manifest.outputs, backend.outputs());
  const bool nv12 = manifest.contract.name != ContractName::tensor && manifest.contract.pixels == Pixels::nv12;
  need(where, nv12 ? std::vector<std::string>{"y", "uv"} : std::vector<std::string>{"image"}, backend.inputs(), false);
  need(where, needed_outputs(manifest), backend.outputs(), manifest.spec.task == Task::features);
  for (const std::vector<TensorInfo>* side : {&backend.inputs(), &backend.outputs()}) {
    for (const TensorInfo& info : *side) {
      if (side == &backend.outputs() && is_raw(manifest.spec.task)) continue;
      if (info.shape != needed_shape(manifest, info)) {
        throw Error(kDamaged, where + ": " + in_words(info.name, name_of(info.type), info.shape) +
                                  " is not of the size that the manifest's spec and contract have; export it again");
      }
    }
  }
}

}  // namespace hiresvit
