// The golden pair: an .npz, which is a zip of .npy files, uncompressed.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace hiresvit {

// dtype is numpy's name ("float32", "uint8", "int64", ...); bytes are in C order, little-endian.
struct Array {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::vector<std::uint8_t> bytes;
};

// By name without ".npy": "inputs/image", "outputs/labels", "answer/labels". Throws Error (damaged) for anything that
// is compressed, of another type, in another order, or not exactly as long as it says.
std::map<std::string, Array> parse_golden(const std::vector<std::uint8_t>& bytes, const std::string& path);
std::map<std::string, Array> read_golden(const std::string& path);

}  // namespace hiresvit
