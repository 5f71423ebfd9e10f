// The readers behind plain functions, for tests/cpp: held there against the Python ones.
#include <cstdio>
#include <string>

#include "golden.hpp"
#include "manifest.hpp"
#include "sha256.hpp"

using namespace hiresvit;

namespace {

thread_local std::string said;

template <class Work>
int guarded(const Work& work) {
  try {
    said = work();
    return 0;
  } catch (const Error& error) {
    said = error.what();
    return error.code;
  }
}

std::string text(const std::optional<Size>& size) {
  return size ? std::to_string(size->height) + "x" + std::to_string(size->width) : "none";
}

std::string tensors(const std::vector<TensorSpec>& specs) {
  std::string out;
  for (const TensorSpec& spec : specs) {
    out += spec.name + " " + spec.dtype;
    for (const std::int64_t side : spec.shape) out += " " + std::to_string(side);
    out += ";";
  }
  return out;
}

std::string number(double value) {
  char out[40];
  std::snprintf(out, sizeof out, "%.17g", value);
  return out;
}

template <class Values>
std::string numbers(const Values& values) {
  std::string out;
  for (const auto value : values) out += number(value) + " ";
  return out + ";";
}

std::string words(const AnchorSpec& a) {
  return numbers(a.strides) + numbers(a.scales) + numbers(a.ratios) + number(a.base) + ";" + numbers(a.means) +
         numbers(a.stds) + number(a.size_clamp) + ";" + number(a.score_threshold) + ";" + number(a.per_level) + ";" +
         number(a.iou_threshold) + ";" + number(a.max_boxes) + ";";
}

std::string words(const Manifest& manifest) {
  const ModelSpec& spec = manifest.spec;
  const PreprocessSpec& prep = spec.preprocess;
  const ContractSpec& contract = manifest.contract;
  std::string out = spec.name + " " + spec.family + " " + std::to_string(static_cast<int>(spec.task)) + " " +
                    text(spec.imgsz) + " " + std::to_string(spec.num_classes) + "\n";
  out += std::to_string(static_cast<int>(prep.resize)) + " " + std::to_string(static_cast<int>(prep.filter)) + " " +
         number(prep.crop_pct) + " " + std::to_string(prep.rounds) + " " + std::to_string(prep.divisor) + " " +
         std::to_string(prep.bgr) + " " + text(prep.stride) + " " + std::to_string(prep.short_side.value_or(0));
  for (const double value : prep.mean) out += " " + number(value);
  for (const double value : prep.std) out += " " + number(value);
  out += "\n" + std::to_string(static_cast<int>(contract.name)) + " " +
         std::to_string(static_cast<int>(contract.pixels)) + " " + text(contract.size) + " " +
         std::to_string(static_cast<int>(contract.yuv)) + " " +
         (contract.label_type ? std::to_string(static_cast<int>(*contract.label_type)) : "none") + " " +
         std::to_string(contract.confidence) + " " + std::to_string(contract.top_k.value_or(0)) + "\n";
  out += tensors(manifest.inputs) + "\n" + tensors(manifest.outputs) + "\n";
  for (const FileEntry& file : manifest.files) {
    out += file.role + " " + file.name + " " + file.sha256 + " " + std::to_string(file.bytes) + " " +
           file.parent.value_or("none") + ";";
  }
  out += "\n";
  for (const auto& [stage, gate] : manifest.gates) {
    out +=
        stage + " " + number(gate.min_sqnr_db) + " " + number(gate.min_cosine) + " " + number(gate.min_agreement) + ";";
  }
  out += "\n";
  if (manifest.labels) {
    for (std::size_t i = 0; i < manifest.labels->names.size(); ++i) {
      const auto& colour = manifest.labels->colours[i];
      out += manifest.labels->names[i] + " " + std::to_string(colour[0]) + " " + std::to_string(colour[1]) + " " +
             std::to_string(colour[2]) + ";";
    }
  }
  if (spec.anchors) out += "\n" + words(*spec.anchors);
  return out;
}

}  // namespace

extern "C" {

const char* t_said() { return said.c_str(); }

int t_bundle(const char* folder) {
  return guarded([&] { return words(read_bundle(folder)); });
}

// In words: name, type and shape of each array and the sha256 of its bytes.
int t_golden(const char* path) {
  return guarded([&] {
    std::string out;
    for (const auto& [name, array] : read_golden(path)) {
      out += name + " " + array.dtype;
      for (const std::int64_t side : array.shape) out += " " + std::to_string(side);
      out += " " + sha256(array.bytes.data(), array.bytes.size()) + "\n";
    }
    return out;
  });
}

int t_sha256(const void* data, std::size_t size, std::size_t piece) {
  return guarded([&] {
    Sha256 sum;
    for (std::size_t at = 0; at < size; at += piece) {
      sum.update(static_cast<const char*>(data) + at, size - at < piece ? size - at : piece);
    }
    return sum.hex();
  });
}

}  // extern "C"
