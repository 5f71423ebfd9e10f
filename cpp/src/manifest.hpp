// What a bundle says about itself: manifest.json (docs/bundle.md), read strictly, and the sums of its files.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "spec.hpp"

namespace hiresvit {

constexpr int kSchemaVersion = 7;
constexpr int kOlderSchema = 6;

struct FileEntry {
  std::string name;
  std::string role;
  std::string sha256;
  std::uint64_t bytes = 0;
  std::optional<std::string> parent;  // the file it was made from, none for the weights
  std::optional<std::string> parent_sha256;
};

struct Labels {
  std::vector<std::string> names;
  std::vector<std::array<std::uint8_t, 3>> colours;
  std::string source;
};

struct Gate {
  double min_sqnr_db = 0;
  double min_cosine = 0;
  double min_agreement = 0;
};

struct Manifest {
  std::string folder;
  ModelSpec spec;
  ContractSpec contract;
  std::vector<TensorSpec> inputs;  // of the FP32 graphs
  std::vector<TensorSpec> outputs;
  std::vector<FileEntry> files;
  std::optional<Labels> labels;
  std::map<std::string, Gate> gates;  // by the stage's name in "parity": onnx, simplified, cpu, fp16, int8
  std::vector<std::string> notes;

  // The entry of a role ("fp32", "cpu", "plan", "golden", ...), null where there is none.
  const FileEntry* find(const std::string& role) const;
  // Its path. Throws Error (bad input) with the roles that there are.
  std::string path(const std::string& role) const;
  // The gate that a role's graph or plan was held to ("fp32" is "onnx", "plan" is "fp16", "int8_plan" is "int8").
  std::optional<Gate> gate(const std::string& role) const;
};

// The manifest of a text, of which nothing else is looked at; `path` is for the message. Throws Error (damaged) with
// the place and what is wanted there.
Manifest parse_manifest(const std::vector<std::uint8_t>& text, const std::string& path);

// Reads folder/manifest.json and, unless `sums` is false, holds every listed file against its size and sha256.
// Throws Error: damaged for what is changed, missing or of another schema; bad input for what may not be read.
Manifest read_bundle(const std::string& folder, bool sums = true);

}  // namespace hiresvit
