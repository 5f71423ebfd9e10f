// Bytes that are nearly right: our own mutations of seeds, for as long as is asked.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "error.hpp"
#include "file.hpp"

namespace fuzz {

using Bytes = std::vector<std::uint8_t>;

// Of zip and of PNG.
inline std::uint32_t crc32(const std::uint8_t* data, std::size_t size) {
  std::uint32_t value = ~0u;
  for (std::size_t i = 0; i < size; ++i) {
    value ^= data[i];
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0xedb88320u : 0u);
  }
  return ~value;
}

class Mutator {
 public:
  explicit Mutator(std::uint32_t seed) : random_(seed) {}

  std::size_t below(std::size_t most) { return most ? random_() % most : 0; }

  // A few of: a bit, a byte, a number of 2, 4 or 8 bytes, a piece left out, doubled or put elsewhere, words put in, the
  // end cut off.
  void mutate(Bytes& bytes, const std::vector<std::string>& words) {
    for (std::size_t times = 1 + below(4); times && !bytes.empty(); --times) once(bytes, words);
  }

 private:
  void once(Bytes& bytes, const std::vector<std::string>& words) {
    const std::size_t at = below(bytes.size()), length = std::min(1 + below(1 + below(64)), bytes.size() - at);
    const auto from = bytes.begin() + static_cast<std::ptrdiff_t>(at), to = from + static_cast<std::ptrdiff_t>(length);
    switch (below(8)) {
      case 0: bytes[at] = static_cast<std::uint8_t>(bytes[at] ^ (1u << below(8))); break;
      case 1: bytes[at] = static_cast<std::uint8_t>(random_()); break;
      case 2: {
        static constexpr std::uint64_t odd[] = {0,      1,          0x7f,       0xff,  0x7fff,
                                                0xffff, 0x7fffffff, 0xffffffff, ~0ull, 1ull << 63};
        const std::uint64_t value = odd[below(10)] + below(3) - 1;
        for (std::size_t i = 0; i < std::min(std::size_t{1} << (1 + below(3)), bytes.size() - at); ++i) {
          bytes[at + i] = static_cast<std::uint8_t>(value >> (8 * i));
        }
        break;
      }
      case 3: bytes.erase(from, to); break;
      case 4: {
        const Bytes piece(from, to);
        bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(below(bytes.size() + 1)), piece.begin(), piece.end());
        break;
      }
      case 5: {
        if (words.empty()) break;
        const std::string& word = words[below(words.size())];
        if (below(2)) bytes.erase(from, to);
        bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), word.begin(), word.end());
        break;
      }
      case 6: {
        const std::size_t other = below(bytes.size() - length + 1);
        std::swap_ranges(from, to, bytes.begin() + static_cast<std::ptrdiff_t>(other));
        break;
      }
      default:
        if (below(8) == 0) bytes.resize(at);
    }
  }

  std::mt19937 random_;
};

// Runs `parse` on mutations of the seeds for so many seconds. An Error of the codes that a reader has is an answer; any
// other exception ends the program, as the sanitizers do. Prints how many were taken, and how many refused by code.
template <class Finish, class Parse>
int run(int count, char** given, std::vector<Bytes> seeds, const std::vector<std::string>& words, const Finish& finish,
        const Parse& parse) {
  const double seconds = count > 1 ? std::atof(given[1]) : 2;
  const auto seed = static_cast<std::uint32_t>(count > 2 ? std::atoi(given[2]) : 1);
  for (int i = 3; i < count; ++i) seeds.push_back(hiresvit::read_file(given[i], 1 << 24, hiresvit::kBadInput));
  Mutator mutator(seed);
  std::map<int, long> codes;
  std::map<std::string, long> said;
  const auto begin = std::chrono::steady_clock::now();
  long total = 0;
  while (std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() < seconds) {
    for (int i = 0; i < 50; ++i, ++total) {
      Bytes bytes = seeds[mutator.below(seeds.size())];
      mutator.mutate(bytes, words);
      finish(bytes);
      int code = 0;
      try {
        parse(bytes);
      } catch (const hiresvit::Error& error) {
        code = error.code;
        const std::string text = error.what();
        if (text.find('\n') != std::string::npos || text.size() > 3000) {
          std::fprintf(stderr, "a message of several lines or %zu bytes: %s\n", text.size(), text.c_str());
          return 1;
        }
        if (code != hiresvit::kDamaged && code != hiresvit::kUsage) {
          std::fprintf(stderr, "code %d: %s\n", code, text.c_str());
          return 1;
        }
        ++said[text.substr(0, 60)];
      }
      ++codes[code];
    }
  }
  std::printf("seed %u: %ld inputs in %.0f s; taken %ld, damaged (7) %ld, usage (2) %ld; %zu kinds of messages\n", seed,
              total, seconds, codes[0], codes[hiresvit::kDamaged], codes[hiresvit::kUsage], said.size());
  return codes[0] && codes[hiresvit::kDamaged] ? 0 : 1;
}

}  // namespace fuzz
