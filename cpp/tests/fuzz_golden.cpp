// The reader of golden pairs on mutations of .npz files, their checksums made right again in most.
// fuzz_golden [SECONDS [SEED [GOLDEN.npz ...]]]
#include "fuzz.hpp"
#include "golden.hpp"

namespace {

void put(fuzz::Bytes& to, std::uint64_t value, int count) {
  for (int i = 0; i < count; ++i) to.push_back(static_cast<std::uint8_t>(i < 8 ? value >> (8 * i) : 0));
}

void put(fuzz::Bytes& to, const std::string& text) { to.insert(to.end(), text.begin(), text.end()); }

fuzz::Bytes npy(int version, const std::string& type, const std::string& shape, std::size_t bytes) {
  std::string header = "{'descr': '" + type + "', 'fortran_order': False, 'shape': (" + shape + "), }";
  const std::size_t front = version == 1 ? 10 : 12;
  header += std::string(63 - (front + header.size()) % 64, ' ') + "\n";
  fuzz::Bytes out;
  put(out, "\x93NUMPY");
  put(out, static_cast<std::uint64_t>(version), 2);
  put(out, header.size(), version == 1 ? 2 : 4);
  put(out, header);
  for (std::size_t i = 0; i < bytes; ++i) out.push_back(static_cast<std::uint8_t>(i * 7));
  return out;
}

void entry(fuzz::Bytes& to, const std::string& name, const fuzz::Bytes& data, const std::size_t* offset) {
  put(to, offset ? 0x02014b50 : 0x04034b50, 4);
  if (offset) put(to, 0x0314, 2);
  put(to, 20, 2);
  put(to, 0, 4);
  put(to, 0x00210000, 4);
  put(to, fuzz::crc32(data.data(), data.size()), 4);
  put(to, data.size(), 4);
  put(to, data.size(), 4);
  put(to, name.size(), 2);
  put(to, 0, offset ? 12 : 2);
  if (offset) put(to, *offset, 4);
  put(to, name);
}

fuzz::Bytes zip(const std::vector<std::pair<std::string, fuzz::Bytes>>& members) {
  fuzz::Bytes out, directory;
  for (const auto& [name, data] : members) {
    const std::size_t offset = out.size();
    entry(out, name, data, nullptr);
    out.insert(out.end(), data.begin(), data.end());
    entry(directory, name, data, &offset);
  }
  const std::size_t begin = out.size();
  out.insert(out.end(), directory.begin(), directory.end());
  put(out, 0x06054b50, 4);
  put(out, 0, 4);
  put(out, members.size(), 2);
  put(out, members.size(), 2);
  put(out, directory.size(), 4);
  put(out, begin, 4);
  put(out, 0, 2);
  return out;
}

std::uint32_t number(const fuzz::Bytes& bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4 && at + i < bytes.size(); ++i)
    value |= static_cast<std::uint32_t>(bytes[at + i]) << (8 * i);
  return value;
}

// The checksum of every member that is found by its first header, written into that and into the directory.
void mend(fuzz::Bytes& bytes) {
  std::vector<std::pair<std::size_t, std::uint32_t>> sums;
  for (std::size_t at = 0; at + 46 < bytes.size(); ++at) {
    const std::uint32_t mark = number(bytes, at);
    if (mark != 0x04034b50 && mark != 0x02014b50) continue;
    const bool local = mark == 0x04034b50;
    std::uint32_t sum = 0;
    if (local) {
      const std::size_t name = number(bytes, at + 26) & 0xffff, more = number(bytes, at + 26) >> 16;
      const std::size_t data = at + 30 + name + more, size = number(bytes, at + 22);
      if (data > bytes.size() || size > bytes.size() - data) continue;
      sum = fuzz::crc32(bytes.data() + data, size);
      sums.emplace_back(at, sum);
    } else {
      const std::size_t offset = number(bytes, at + 42);
      const auto found = std::find_if(sums.begin(), sums.end(), [&](const auto& one) { return one.first == offset; });
      if (found == sums.end()) continue;
      sum = found->second;
    }
    for (std::size_t i = 0; i < 4; ++i) bytes[at + (local ? 14 : 16) + i] = static_cast<std::uint8_t>(sum >> (8 * i));
  }
}

}  // namespace

int main(int count, char** given) {
  const fuzz::Bytes seed = zip({{"inputs/image.npy", npy(1, "<f4", "1, 3, 2, 2", 48)},
                                {"outputs/labels.npy", npy(2, "|u1", "1, 2, 2", 4)},
                                {"answer/probabilities.npy", npy(1, "<f8", "5,", 40)},
                                {"answer/one.npy", npy(1, "<i8", "", 8)}});
  const std::vector<std::string> words{"<f4",
                                       ">f4",
                                       "|O",
                                       "<U4",
                                       "True",
                                       "9999999999",
                                       "(",
                                       ")",
                                       "0, ",
                                       "-1, ",
                                       "18446744073709551616, ",
                                       "1000000, 1000000, ",
                                       "PK\x03\x04",
                                       "PK\x01\x02",
                                       "\x93NUMPY",
                                       ".npy",
                                       "../"};
  bool first = true;
  int turn = 0;
  return fuzz::run(
      count, given, {seed}, words,
      [&](fuzz::Bytes& bytes) {
        if (first) bytes = seed;
        first = false;
        if (++turn % 4) mend(bytes);
      },
      [](const fuzz::Bytes& bytes) {
        for (const auto& [name, array] : hiresvit::parse_golden(bytes, "golden.npz")) {
          std::uint64_t values = 1;
          for (const std::int64_t side : array.shape) values *= static_cast<std::uint64_t>(side);
          if (array.bytes.size() % (values ? values : 1) || array.bytes.size() > bytes.size()) std::abort();
        }
      });
}
