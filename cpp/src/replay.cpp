#include "replay.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "contract.hpp"
#include "error.hpp"
#include "golden.hpp"
#include "half.hpp"

namespace hiresvit {
namespace {

// One value of a tensor, whatever its type.
double value_at(const void* data, Type type, std::size_t index) {
  switch (type) {
    case Type::u8: return static_cast<const std::uint8_t*>(data)[index];
    case Type::i32: return static_cast<const std::int32_t*>(data)[index];
    case Type::i64: return static_cast<double>(static_cast<const std::int64_t*>(data)[index]);
    case Type::f16: return from_half(static_cast<const std::uint16_t*>(data)[index]);
    case Type::f32: break;
  }
  return static_cast<const float*>(data)[index];
}

struct Side {
  const void* data;
  Type type;
  std::size_t count;
  double at(std::size_t index) const { return value_at(data, type, index); }
};

// The index of the best of `classes` values that lie `step` apart from `start` on; of equals the lowest.
std::size_t best(const Side& side, std::size_t start, std::size_t classes, std::size_t step) {
  std::size_t found = 0;
  for (std::size_t index = 1; index < classes; ++index) {
    if (side.at(start + index * step) > side.at(start + found * step)) found = index;
  }
  return found;
}

std::string missed(const char* measure, double value, double least) {
  char text[120];
  std::snprintf(text, sizeof text, " has %s %.6g, at least %.6g is needed", measure, value, least);
  return text;
}

// Each of these says what misses the gate, or nothing.
std::string miss_of_tensor(const Side& wanted, const Side& found, const Gate& gate) {
  double of_wanted = 0, of_found = 0, product = 0, difference = 0;
  for (std::size_t index = 0; index < wanted.count; ++index) {
    const double a = wanted.at(index), b = found.at(index);
    if (!std::isfinite(b)) return " has NaN or Inf";
    of_wanted += a * a, of_found += b * b, product += a * b, difference += (a - b) * (a - b);
  }
  if (difference == 0) return "";
  const double sqnr = of_wanted > 0 ? 10 * std::log10(of_wanted / difference) : -INFINITY;
  const double norms = std::sqrt(of_wanted) * std::sqrt(of_found);
  const double cosine = norms > 0 ? std::min(product / norms, 1.0) : 0;
  if (!(sqnr >= gate.min_sqnr_db)) return missed("sqnr_db", sqnr, gate.min_sqnr_db);
  return cosine >= gate.min_cosine ? "" : missed("cosine", cosine, gate.min_cosine);
}

std::string miss_of_agreement(std::size_t same, std::size_t all, const Gate& gate) {
  const double share = static_cast<double>(same) / static_cast<double>(all);
  return share >= gate.min_agreement ? "" : missed("agreement", share, gate.min_agreement);
}

std::string miss_of_output(const TensorInfo& info, const Side& wanted, const Side& found, const Gate& gate, Task task) {
  std::size_t same = 0;
  // Of close ones another may come first in FP16 and INT8; what they are worth is gated, too
  if (task == Task::classify && info.name == "classes") {
    const std::size_t places = gate.min_agreement > 0.99 ? 1 : wanted.count;
    for (std::size_t index = 0; index < places; ++index) same += wanted.at(index) == found.at(0) ? 1 : 0;
    return same > 0 ? "" : missed("agreement", 0, gate.min_agreement);
  }
  if (task == Task::segment && (info.name == "labels" || info.name == "confidence")) {
    // Rounded to 255 levels, a confidence that was near a half of one may come out beside it.
    const double off = info.name == "confidence" ? 255 * (1 - gate.min_cosine) + 1 : 0;
    for (std::size_t index = 0; index < wanted.count; ++index) {
      same += std::abs(wanted.at(index) - found.at(index)) <= off ? 1 : 0;
    }
    return miss_of_agreement(same, wanted.count, gate);
  }
  const std::string miss = miss_of_tensor(wanted, found, gate);
  if (miss.empty() && task == Task::masks && info.name == "masks") {  // of a mask the sign says what belongs to it
    for (std::size_t index = 0; index < wanted.count; ++index) {
      same += (wanted.at(index) > 0) == (found.at(index) > 0) ? 1 : 0;
    }
    return miss_of_agreement(same, wanted.count, gate);
  }
  if (!miss.empty() || task != Task::segment || info.shape.size() != 4) return miss;
  const std::size_t classes = static_cast<std::size_t>(info.shape[1]);
  const std::size_t pixels = static_cast<std::size_t>(info.shape[2] * info.shape[3]);
  for (std::size_t pixel = 0; pixel < pixels; ++pixel) {
    same += best(wanted, pixel, classes, pixels) == best(found, pixel, classes, pixels) ? 1 : 0;
  }
  return miss_of_agreement(same, pixels, gate);
}

// The gates of hiresvit/bundle/stages.py, for what was exported without a comparison.
Gate gate_of(const Manifest& manifest, const std::string& role) {
  if (const std::optional<Gate> own = manifest.gate(role)) return *own;
  if (role == "int8" || role == "int8_plan" || role == "htp_a8w8") return {10.0, 0.93, 0.45};
  if (role == "htp_a16w8") return {15.0, 0.97, 0.5};
  if (role == "htp_fp16") return {45.0, 0.9999, 0.96};
  return role == "fp16" || role == "plan" ? Gate{38.0, 0.9995, 0.94} : Gate{90.0, 0.999999, 0.999};
}

using Arrays = std::map<std::string, Array>;

const Array& member(const Arrays& golden, const std::string& name, const TensorInfo& info, const std::string& where) {
  const auto found = golden.find(name);
  if (found == golden.end()) {
    throw Error(kDamaged, where + "the golden pair has no " + shown(name, 60) + "; export it again");
  }
  const Array& array = found->second;
  if (!type_fits(array.dtype, info.type) || !shape_fits(array.shape, info.shape)) {
    throw Error(kDamaged, where + "the golden pair has " + in_words(name, array.dtype.c_str(), array.shape) +
                              ", the graph " + in_words(info.name, name_of(info.type), info.shape) +
                              "; export it again");
  }
  return array;
}

void feed(void* input, const TensorInfo& info, const Array& array) {
  if (array.bytes.size() == info.bytes) {
    std::memcpy(input, array.bytes.data(), info.bytes);
    return;
  }
  for (std::size_t index = 0; index < info.bytes / sizeof(std::uint16_t); ++index) {  // float32 for --io fp16
    float value = 0;
    std::memcpy(&value, array.bytes.data() + index * sizeof value, sizeof value);
    static_cast<std::uint16_t*>(input)[index] = to_half(value);
  }
}

}  // namespace

void replay_golden(const Manifest& manifest, const std::string& role, Backend& backend) {
  const std::string where = manifest.folder + ": ";
  const Arrays golden = read_golden(manifest.path("golden"));
  for (std::size_t index = 0; index < backend.inputs().size(); ++index) {
    const TensorInfo& info = backend.inputs()[index];
    feed(backend.input(0, index), info, member(golden, "inputs/" + info.name, info, where));
  }
  backend.submit(0);
  backend.wait(0);
  for (std::size_t index = 0; index < backend.outputs().size(); ++index) {
    const TensorInfo& info = backend.outputs()[index];
    const Array& array = member(golden, "outputs/" + info.name, info, where);
    const std::size_t count = info.bytes / bytes_of(info.type);
    const Side wanted{array.bytes.data(), type_of(array.dtype), count};
    const Side found{backend.output(0, index), info.type, count};
    const std::string miss = miss_of_output(info, wanted, found, gate_of(manifest, role), manifest.spec.task);
    if (!miss.empty()) {
      throw Error(kDamaged, where + "the golden pair does not come out on this machine: " + role + ": output " +
                                shown(info.name, 60) + miss + "; export it again");
    }
  }
}

}  // namespace hiresvit
