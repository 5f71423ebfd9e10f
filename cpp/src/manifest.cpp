#include "manifest.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "error.hpp"
#include "file.hpp"
#include "json.hpp"
#include "sha256.hpp"

namespace hiresvit {

namespace {

constexpr std::uint64_t kMostText = 1 << 26;
constexpr std::size_t kAny = std::numeric_limits<std::size_t>::max();
constexpr const char* kName = "manifest.json";

[[noreturn]] void damaged(const std::string& path, const std::string& what) {
  throw Error(kDamaged, shown(path, 1000) + " " + what + "; export the bundle again or copy it anew");
}

int side(const Node& node) { return static_cast<int>(node.whole(1, kMostSide)); }

std::optional<Size> size_of(const Node& node) {
  if (node.null()) return std::nullopt;
  const std::vector<Node> sides = node.list(2, 2);
  return Size{side(sides[0]), side(sides[1])};
}

template <std::size_t kCount>
std::array<double, kCount> numbers_of(const Node& node, double least, double most) {
  std::array<double, kCount> values{};
  const std::vector<Node> numbers = node.list(kCount, kCount);
  std::transform(numbers.begin(), numbers.end(), values.begin(), [&](const Node& n) { return n.number(least, most); });
  return values;
}

Filter filter_of(const Node& node) {
  const std::size_t kind =
      node["interpolation"].one_of({"bilinear", "bicubic", "lanczos", "nearest", "box", "hamming", "area"});
  const bool opencv = node.has("filter") && node["filter"].one_of({"pillow", "opencv"}) == 1;
  if (kind > 2 || (opencv && kind)) {
    throw Error(kUsage, "interpolation " + node["interpolation"].text() + (opencv ? " with OpenCV's filter" : "") +
                            ": only " + (opencv ? "bilinear is" : "bilinear, bicubic and lanczos are") +
                            " known here; export the bundle with one of them");
  }
  return opencv ? Filter::opencv : static_cast<Filter>(kind);
}

PreprocessSpec preprocess_of(const Node& node) {
  node.record({"resize", "interpolation", "crop_pct", "mean", "std"},
              {"filter", "rounding", "divisor", "channels", "stride", "short_side"});
  PreprocessSpec spec;
  spec.resize = static_cast<Resize>(node["resize"].one_of({"stretch", "crop", "keep", "letterbox", "slide"}));
  spec.filter = filter_of(node);
  spec.crop_pct = node["crop_pct"].number(0.01, 1);
  spec.mean = numbers_of<3>(node["mean"], -1e100, 1e100);
  spec.std = numbers_of<3>(node["std"], 1e-9, 1e9);
  if (node.has("rounding")) spec.rounds = node["rounding"].one_of({"floor", "round"}) == 1;
  if (node.has("divisor")) spec.divisor = side(node["divisor"]);
  if (node.has("channels")) spec.bgr = node["channels"].one_of({"rgb", "bgr"}) == 1;
  if (node.has("stride")) spec.stride = size_of(node["stride"]);
  if (node.has("short_side") && !node["short_side"].null()) spec.short_side = side(node["short_side"]);
  return spec;
}

std::vector<double> sizes_of(const Node& node) {
  std::vector<double> values;
  for (const Node& value : node.list(1, 64)) values.push_back(value.number(1e-6, 1e6));
  return values;
}

AnchorSpec anchors_of(const Node& node) {
  node.record({"strides", "scales", "ratios", "base", "means", "stds", "size_clamp", "score_threshold", "per_level",
               "iou_threshold", "max_boxes"});
  AnchorSpec anchors;
  for (const Node& stride : node["strides"].list(1, 16)) anchors.strides.push_back(side(stride));
  anchors.scales = sizes_of(node["scales"]), anchors.ratios = sizes_of(node["ratios"]);
  anchors.base = node["base"].number(1e-6, 1e6);
  anchors.means = numbers_of<4>(node["means"], -1e100, 1e100);
  anchors.stds = numbers_of<4>(node["stds"], 1e-6, 1e6);
  anchors.size_clamp = node["size_clamp"].number(1e-6, 1);
  anchors.score_threshold = node["score_threshold"].number(1e-6, 0.999999);
  anchors.per_level = side(node["per_level"]);
  anchors.iou_threshold = node["iou_threshold"].number(0, 1);
  anchors.max_boxes = side(node["max_boxes"]);
  return anchors;
}

ModelSpec spec_of(const Node& node) {
  node.record({"name", "family", "task", "imgsz", "num_classes", "preprocess", "overrides"}, {"strides", "anchors"});
  ModelSpec spec;
  spec.name = node["name"].word();
  spec.family = node["family"].word();
  spec.task = static_cast<Task>(node["task"].one_of({"classify", "segment", "features", "masks", "detect"}));
  const std::optional<Size> imgsz = size_of(node["imgsz"]);
  if (!imgsz) node["imgsz"].refuse("a list of 2");
  spec.imgsz = *imgsz;
  spec.num_classes = static_cast<int>(node["num_classes"].whole(0, 1 << 20));
  spec.preprocess = preprocess_of(node["preprocess"]);
  node["overrides"].list(0, kAny);
  if (node.has("strides")) {
    for (const Node& stride : node["strides"].list(1, 16)) side(stride);
  }
  if (node.has("anchors")) spec.anchors = anchors_of(node["anchors"]);
  if (spec.anchors.has_value() != (spec.task == Task::detect)) {
    node.refuse("with anchors if its task is detect, and without them if it is another");
  }
  return spec;
}

ContractSpec contract_of(const Node& node) {
  node.record({"name", "pixels", "size", "yuv", "label_type", "confidence", "top_k"});
  ContractSpec contract;
  contract.name = static_cast<ContractName>(node["name"].one_of({"tensor", "image", "camera"}));
  contract.pixels = static_cast<Pixels>(node["pixels"].one_of({"rgb", "bgr", "rgba", "bgra", "nv12"}));
  contract.size = size_of(node["size"]);
  if (!node["yuv"].null()) {
    contract.yuv = static_cast<Yuv>(1 + node["yuv"].one_of({"bt601", "bt709", "bt601-full", "bt709-full"}));
  }
  if (!node["label_type"].null()) {
    contract.label_type = static_cast<LabelType>(node["label_type"].one_of({"uint8", "int32", "int64"}));
  }
  contract.confidence = node["confidence"].flag();
  if (!node["top_k"].null()) contract.top_k = side(node["top_k"]);
  const bool pixels = contract.name != ContractName::tensor;
  if (pixels && !contract.size) node["size"].refuse("a list of 2, since pixels go in");
  if (pixels && contract.pixels == Pixels::nv12) {
    if (contract.yuv == Yuv::none) node["yuv"].refuse("the colours of nv12");
    if (contract.size->height % 2 || contract.size->width % 2) node["size"].refuse("even, as nv12 needs it");
  }
  return contract;
}

std::vector<TensorSpec> tensors_of(const Node& node) {
  std::vector<TensorSpec> tensors;
  for (const Node& each : node.list(1, kAny)) {
    each.record({"name", "dtype", "shape"});
    TensorSpec tensor{each["name"].name(), each["dtype"].word(), {}};
    for (const Node& axis : each["shape"].list(0, 32)) {
      if (axis.is_text()) axis.name();
      tensor.shape.push_back(axis.is_text() ? -1 : axis.whole(0, std::numeric_limits<std::int64_t>::max()));
    }
    const auto same = [&](const TensorSpec& other) { return other.name == tensor.name; };
    if (std::any_of(tensors.begin(), tensors.end(), same)) each["name"].refuse("there once");
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

std::optional<Labels> labels_of(const Node& node, int classes) {
  if (node.null()) return std::nullopt;
  node.record({"names", "colours", "source"});
  Labels labels;
  for (const Node& name : node["names"].list(1, kAny)) labels.names.push_back(name.name());
  for (const Node& colour : node["colours"].list(1, kAny)) {
    std::array<std::uint8_t, 3> levels{};
    const std::vector<Node> parts = colour.list(3, 3);
    for (std::size_t i = 0; i < 3; ++i) levels[i] = static_cast<std::uint8_t>(parts[i].whole(0, 255));
    labels.colours.push_back(levels);
  }
  labels.source = node["source"].name();
  const auto count = static_cast<std::size_t>(classes);
  if (labels.names.size() != count || labels.colours.size() != count) {
    node.refuse("a name and a colour for each of " + std::to_string(classes) + " classes");
  }
  return labels;
}

std::map<std::string, Gate> gates_of(const Node& node) {
  std::map<std::string, Gate> gates;
  if (node.null()) return gates;
  for (const Node& stage : node["stages"].list(0, kAny)) {
    const std::string name = stage["stage"].name();
    const Node gate = stage["gate"];
    if (gate.null()) continue;
    gate.record({"min_sqnr_db", "min_cosine", "min_agreement"});
    const auto limit = [&](const char* key) { return gate[key].number(-1e100, 1e100); };
    gates.emplace(name, Gate{limit("min_sqnr_db"), limit("min_cosine"), limit("min_agreement")});
  }
  return gates;
}

std::optional<std::string> sum_of(const Node& node) {
  return node.null() ? std::nullopt : std::optional<std::string>(node.sha256());
}

std::string brief(const std::optional<std::string>& sum) { return sum ? sum->substr(0, 12) : "(none)"; }

// Names and roles are there once, and from each file a chain of sums leads to the weights.
std::vector<FileEntry> files_of(const Node& node, const std::optional<std::string>& weights) {
  std::vector<FileEntry> files;
  std::map<std::string, std::string> sums;
  std::set<std::string> roles;
  for (const Node& each : node.list(0, 1000)) {
    each.record({"name", "role", "sha256", "bytes", "parent", "parent_sha256"});
    FileEntry file;
    file.name = each["name"].word();
    file.role = each["role"].word();
    file.sha256 = each["sha256"].sha256();
    file.bytes = static_cast<std::uint64_t>(each["bytes"].whole(0, std::numeric_limits<std::int64_t>::max()));
    if (!each["parent"].null()) file.parent = each["parent"].word();
    file.parent_sha256 = sum_of(each["parent_sha256"]);
    if (file.name == kName || sums.count(file.name)) each["name"].refuse("there once, and not the manifest");
    if (!roles.insert(file.role).second) each["role"].refuse("there once");
    if (file.parent && !sums.count(*file.parent)) each["parent"].refuse("a file that is listed before it");
    const std::optional<std::string> now = file.parent ? std::optional<std::string>(sums[*file.parent]) : weights;
    if (now != file.parent_sha256) {
      each["parent_sha256"].refuse(brief(now) + ", that of " + file.parent.value_or("the weights") + ", and not " +
                                   brief(file.parent_sha256));
    }
    sums[file.name] = file.sha256;
    files.push_back(std::move(file));
  }
  return files;
}

Manifest manifest_of(const Node& node) {
  node.record({"kind",    "schema_version", "manifest_sha256", "spec",    "contract", "inputs", "outputs", "weights",
               "files",   "tools",          "command",         "graphs",  "simplify", "fp16",   "int8",    "htp",
               "engines", "labels",         "parity",          "latency", "notes",    "created"});
  Manifest manifest;
  manifest.spec = spec_of(node["spec"]);
  manifest.contract = contract_of(node["contract"]);
  manifest.inputs = tensors_of(node["inputs"]);
  manifest.outputs = tensors_of(node["outputs"]);
  node["weights"].record({"source", "sha256"});
  node["weights"]["source"].text();
  manifest.files = files_of(node["files"], sum_of(node["weights"]["sha256"]));
  manifest.labels = labels_of(node["labels"], manifest.spec.num_classes);
  manifest.gates = gates_of(node["parity"]);
  for (const Node& note : node["notes"].list(0, kAny)) manifest.notes.push_back(note.text());
  return manifest;
}

// Its own sum is taken over its bytes with zeros in the sum's place.
void check_seal(const std::vector<std::uint8_t>& text, const std::string& seal, const std::string& path) {
  std::string bytes(text.begin(), text.end());
  for (std::size_t at = bytes.find(seal); at != std::string::npos; at = bytes.find(seal, at + seal.size())) {
    bytes.replace(at, seal.size(), seal.size(), '0');
  }
  const std::string found = sha256(bytes.data(), bytes.size());
  if (found != seal) {
    damaged(path, "was edited: its sha256 is " + found.substr(0, 12) + ", it says " + seal.substr(0, 12));
  }
}

// What stands around a manifest in the file.
struct Envelope {
  std::int64_t schema;
  std::string seal;
};

Envelope envelope_of(const Node& node, const std::string& path) {
  try {
    const std::int64_t schema = node["schema_version"].whole(0, std::numeric_limits<std::int64_t>::max());
    return Envelope{schema, node["manifest_sha256"].sha256()};
  } catch (const Error& error) {
    damaged(path, std::string("is damaged: ") + error.what());
  }
}

const char* gate_of(const std::string& role) {
  if (role == "fp32") return "onnx";
  if (role == "plan") return "fp16";
  if (role == "int8_plan") return "int8";
  return role.c_str();
}

}  // namespace

const FileEntry* Manifest::find(const std::string& role) const {
  const auto found = std::find_if(files.begin(), files.end(), [&](const FileEntry& file) { return file.role == role; });
  return found == files.end() ? nullptr : &*found;
}

std::string Manifest::path(const std::string& role) const {
  if (const FileEntry* file = find(role)) return folder + "/" + file->name;
  std::string there;
  for (const FileEntry& file : files) there += (there.empty() ? "" : ", ") + file.role;
  throw Error(kBadInput, shown(folder, 1000) + " has no " + shown(role, 60) + "; it has " + there);
}

std::optional<Gate> Manifest::gate(const std::string& role) const {
  const auto found = gates.find(gate_of(role));
  return found == gates.end() ? std::nullopt : std::optional<Gate>(found->second);
}

Manifest parse_manifest(const std::vector<std::uint8_t>& text, const std::string& path) {
  nlohmann::json values;
  try {
    values = read_json(text);
  } catch (const Error& error) {
    damaged(path, std::string("is not valid JSON (") + error.what() + ")");
  }
  const Node node(values, "");
  if (!node.has("kind") || !node["kind"].is_text() || node["kind"].text() != "hiresvit-bundle") {
    damaged(path, "is no manifest of a bundle: its kind is not hiresvit-bundle");
  }
  const Envelope envelope = envelope_of(node, path);
  if (envelope.schema != kSchemaVersion && envelope.schema != kOlderSchema) {
    damaged(path, "has schema version " + std::to_string(envelope.schema) + ", this library reads " +
                      std::to_string(kOlderSchema) + " and " + std::to_string(kSchemaVersion));
  }
  check_seal(text, envelope.seal, path);
  if (envelope.schema == kOlderSchema) values["htp"] = nlohmann::json::object();  // nothing was made for an HTP then
  try {
    return manifest_of(node);
  } catch (const Error& error) {
    if (error.code != kDamaged) throw Error(error.code, shown(path, 1000) + ": " + error.what());
    damaged(path, std::string("is damaged: ") + error.what());
  }
}

Manifest read_bundle(const std::string& folder, bool sums) {
  const std::string path = folder + "/" + kName;
  Manifest manifest = parse_manifest(read_file(path, kMostText, kDamaged), path);
  manifest.folder = folder;
  for (const FileEntry& file : manifest.files) {
    if (!sums) break;
    const std::string place = folder + "/" + file.name;
    const FileSum found = sum_file(place, kDamaged);
    if (found.bytes != file.bytes || found.sha256 != file.sha256) {
      damaged(place, "was changed: it has " + std::to_string(found.bytes) + " bytes with sha256 " +
                         found.sha256.substr(0, 12) + ", the manifest says " + std::to_string(file.bytes) + " with " +
                         file.sha256.substr(0, 12));
    }
  }
  return manifest;
}

}  // namespace hiresvit
