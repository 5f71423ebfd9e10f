// Files, read whole or summed: regular ones only, so that a pipe or a device cannot block.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hiresvit {

// The bytes of a file. Throws Error: of `code_if_absent` where it is not there, no file or of more than `most` bytes;
// bad input where it may not be read.
std::vector<std::uint8_t> read_file(const std::string& path, std::uint64_t most, int code_if_absent);

struct FileSum {
  std::uint64_t bytes;
  std::string sha256;
};

// Throws as read_file does.
FileSum sum_file(const std::string& path, int code_if_absent);

}  // namespace hiresvit
