// The manifest reader on mutations of manifests, each sealed anew so that what lies behind the sum is reached.
// fuzz_manifest [SECONDS [SEED [MANIFEST.json ...]]]
#include "fuzz.hpp"
#include "manifest.hpp"
#include "sha256.hpp"

namespace {

const std::string kZeros(64, '0');

const char* const kSeed = R"({"kind": "hiresvit-bundle", "schema_version": 7, "manifest_sha256": "SEAL",
"command": ["hiresvit"], "created": "2026-01-01T00:00:00Z", "engines": {}, "fp16": null, "int8": null, "graphs": {},
"htp": {"a16w8": {"chip": {"name": "ar1"}, "emulated": null, "refused": []}},
"contract": {"name": "camera", "pixels": "nv12", "size": [48, 64], "yuv": "bt709-full", "label_type": "uint8",
 "confidence": true, "top_k": null}, "latency": null, "notes": ["fresh weights"], "simplify": null,
"files": [{"name": "fp32.onnx", "role": "fp32", "bytes": 12, "sha256": "AAAA", "parent": null, "parent_sha256": null},
 {"name": "cpu.onnx", "role": "cpu", "bytes": 1, "sha256": "BBBB", "parent": "fp32.onnx", "parent_sha256": "AAAA"}],
"inputs": [{"name": "y", "dtype": "uint8", "shape": ["batch", 48, 64]}, {"name": "uv", "dtype": "uint8", "shape": [1]}],
"outputs": [{"name": "labels", "dtype": "uint8", "shape": [1, 48, 64]}], "tools": {"torch": "2"},
"labels": {"names": ["road", "sch\u00f6n"], "colours": [[1, 2, 3], [255, 0, 0]], "source": "dataset"},
"parity": {"images": 1, "stages": [{"stage": "fp16", "gate": {"min_sqnr_db": 38.0, "min_cosine": 0.9995,
 "min_agreement": 0.94}, "report": {"outputs": []}}, {"stage": "cpu", "gate": null, "report": {}}]},
"spec": {"name": "hrvit_b1", "family": "hrvit", "task": "segment", "imgsz": [32, 32], "num_classes": 2, "overrides":
 [["windows", [1, 2]]], "strides": [4, 8], "preprocess": {"resize": "slide", "interpolation": "bicubic", "crop_pct": 0.9,
 "mean": [0.5, 0.5, 0.5], "std": [0.2, 1, 0.2], "filter": "pillow", "rounding": "round", "divisor": 8, "channels": "bgr",
 "stride": [24, 24], "short_side": 512}}, "weights": {"source": "fresh, seed 0", "sha256": null}})";

// What makes a detector of it.
const char* const kSegments = "\"task\": \"segment\"";
const char* const kDetects = R"("task": "detect", "anchors": {"strides": [8, 16], "scales": [1, 1.26], "ratios": [0.5, 1, 2],
"base": 4, "means": [0, 0, 0, 0], "stds": [1, 1, 1, 1], "size_clamp": 0.016, "score_threshold": 0.05, "per_level": 1000,
"iou_threshold": 0.5, "max_boxes": 100})";

std::string replaced(std::string text, const std::string& what, const std::string& with) {
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size())) {
    text.replace(at, what.size(), with);
  }
  return text;
}

// With zeros where the sum is.
fuzz::Bytes unsealed(const fuzz::Bytes& bytes) {
  std::string text(bytes.begin(), bytes.end());
  const std::string key = "\"manifest_sha256\": \"";
  const std::size_t at = text.find(key);
  if (at != std::string::npos && at + key.size() + 64 <= text.size()) text.replace(at + key.size(), 64, kZeros);
  return fuzz::Bytes(text.begin(), text.end());
}

void seal(fuzz::Bytes& bytes) {
  std::string text(bytes.begin(), bytes.end());
  text = replaced(text, kZeros, hiresvit::sha256(text.data(), text.size()));
  bytes.assign(text.begin(), text.end());
}

}  // namespace

int main(int count, char** given) {
  std::string seed = replaced(replaced(kSeed, "AAAA", std::string(64, 'a')), "BBBB", std::string(64, 'b'));
  seed = replaced(seed, "SEAL", kZeros);
  const std::vector<std::string> words{"null",
                                       "true",
                                       "1e999",
                                       "-0",
                                       "NaN",
                                       "99999999999999999999999",
                                       "[[[[[[[[[[[[[[[[",
                                       "{\"a\":",
                                       "\"\\u0000\"",
                                       "\"\\u202e\"",
                                       "\"../x\"",
                                       "64.0",
                                       "-1",
                                       "65537",
                                       ",",
                                       "\"",
                                       "\xff",
                                       "\xc3",
                                       "\"fp32\"",
                                       "[]",
                                       "{}",
                                       "1.7976931348623157e308",
                                       "\"nv12\"",
                                       "\"crop\""};
  const std::string detector = replaced(seed, kSegments, kDetects);
  const std::vector<fuzz::Bytes> seeds{fuzz::Bytes(seed.begin(), seed.end()),
                                       fuzz::Bytes(detector.begin(), detector.end())};
  std::size_t taken = 0;
  return fuzz::run(
      count, given, seeds, words,
      [&](fuzz::Bytes& bytes) {
        if (taken < seeds.size()) bytes = seeds[taken++];  // the seeds themselves are taken
        bytes = unsealed(bytes);
        seal(bytes);
      },
      [](const fuzz::Bytes& bytes) { hiresvit::parse_manifest(bytes, "manifest.json"); });
}
