// SHA-256 (FIPS 180-4).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace hiresvit {

class Sha256 {
 public:
  void update(const void* data, std::size_t size);
  std::string hex();  // of all that was given; then it is spent

 private:
  void block(const std::uint8_t* data);
  std::array<std::uint32_t, 8> state_{0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                                      0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
  std::array<std::uint8_t, 64> rest_{};
  std::uint64_t total_ = 0;
};

std::string sha256(const void* data, std::size_t size);

}  // namespace hiresvit
