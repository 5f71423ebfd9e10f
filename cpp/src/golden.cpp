#include "golden.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "error.hpp"
#include "file.hpp"

namespace hiresvit {

namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 34;
constexpr std::size_t kMostMembers = 1000, kMostName = 1000, kMostAxes = 32;

// Bytes of a file that are taken from the front, each only if it is there.
class Reader {
 public:
  Reader(const std::vector<std::uint8_t>& bytes, std::size_t begin, std::size_t end)
      : bytes_(bytes), at_(begin), end_(end) {
    if (begin > end || end > bytes.size()) fail("it ends too early");
  }
  [[noreturn]] static void fail(const std::string& what) { throw Error(kDamaged, what); }
  std::size_t at() const { return at_; }
  std::size_t left() const { return end_ - at_; }

  const std::uint8_t* take(std::size_t count) {
    if (count > left()) fail("it ends too early");
    at_ += count;
    return bytes_.data() + at_ - count;
  }
  // An unsigned number of 2 or 4 bytes, the lowest first.
  std::uint32_t number(int count) {
    const std::uint8_t* from = take(static_cast<std::size_t>(count));
    std::uint32_t value = 0;
    for (int i = 0; i < count; ++i) value |= static_cast<std::uint32_t>(from[i]) << (8 * i);
    return value;
  }
  std::string text(std::size_t count) {
    const std::uint8_t* from = take(count);
    return std::string(reinterpret_cast<const char*>(from), count);
  }

 private:
  const std::vector<std::uint8_t>& bytes_;
  std::size_t at_, end_;
};

struct Type {
  const char* code;
  const char* name;
  std::size_t bytes;
};

constexpr Type kTypes[] = {{"|b1", "bool", 1},  {"|u1", "uint8", 1},   {"|i1", "int8", 1},    {"<u2", "uint16", 2},
                           {"<i2", "int16", 2}, {"<u4", "uint32", 4},  {"<i4", "int32", 4},   {"<u8", "uint64", 8},
                           {"<i8", "int64", 8}, {"<f2", "float16", 2}, {"<f4", "float32", 4}, {"<f8", "float64", 8}};

// The header of an .npy as numpy writes it: {'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 2, 2), } and
// blanks.
class Header {
 public:
  explicit Header(const std::string& text) : text_(text) {}

  Array read() {
    Array array;
    expect("{'descr': '");
    const std::size_t quote = text_.find('\'', at_);
    const std::string code = quote == std::string::npos ? "" : text_.substr(at_, quote - at_);
    const Type* found =
        std::find_if(std::begin(kTypes), std::end(kTypes), [&](const Type& t) { return code == t.code; });
    if (found == std::end(kTypes))
      Reader::fail("it has an array of type " + shown(code, 20) + ", which none of ours is");
    array.dtype = found->name;
    at_ = quote;
    expect("', 'fortran_order': False, 'shape': (");
    std::uint64_t bytes = found->bytes;
    while (!at(')')) {
      const std::int64_t side = number();
      array.shape.push_back(side);
      if (array.shape.size() > kMostAxes) Reader::fail("it has an array of more than 32 axes");
      const auto wide = static_cast<std::uint64_t>(side);
      if (wide && bytes > kMostBytes / wide) Reader::fail("it has an array of more bytes than it can hold");
      bytes *= wide;
      if (at(',')) ++at_;
      if (at(' ')) ++at_;
    }
    expect("), }");
    while (at(' ')) ++at_;
    if (!at('\n') || at_ + 1 != text_.size()) odd();
    bytes_ = bytes;
    return array;
  }
  std::uint64_t bytes() const { return bytes_; }

 private:
  [[noreturn]] void odd() const { Reader::fail("it has an array whose header is not as numpy writes it, in C order"); }
  bool at(char c) const { return at_ < text_.size() && text_[at_] == c; }
  void expect(const char* words) {
    const std::size_t length = std::strlen(words);
    if (text_.compare(at_, length, words) != 0) odd();
    at_ += length;
  }
  std::int64_t number() {
    std::int64_t value = 0;
    const std::size_t begin = at_;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      value = value * 10 + (text_[at_] - '0');
      if (at_ - begin > 15) odd();
    }
    if (at_ == begin) odd();
    return value;
  }

  const std::string& text_;
  std::size_t at_ = 0;
  std::uint64_t bytes_ = 0;
};

Array read_array(const std::vector<std::uint8_t>& bytes, std::size_t begin, std::size_t end) {
  Reader reader(bytes, begin, end);
  if (reader.text(6) != "\x93NUMPY") Reader::fail("it has a member that is no .npy");
  const std::uint32_t version = reader.number(2);  // 1, 0 or 2, 0
  if (version != 1 && version != 2) Reader::fail("it has an .npy of another version than 1.0 and 2.0");
  const std::uint32_t length = reader.number(version == 1 ? 2 : 4);
  const std::string text = reader.text(length);
  Header header(text);
  Array array = header.read();
  if (header.bytes() != reader.left()) {
    Reader::fail("it has an array of " + std::to_string(header.bytes()) + " bytes in a member of " +
                 std::to_string(reader.left()));
  }
  const std::uint8_t* data = reader.take(reader.left());
  array.bytes.assign(data, data + header.bytes());
  return array;
}

std::uint32_t crc32(const std::uint8_t* data, std::size_t size) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> made{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0xedb88320u : 0u);
      made[i] = value;
    }
    return made;
  }();
  std::uint32_t value = ~0u;
  for (std::size_t i = 0; i < size; ++i) value = value >> 8 ^ table[(value ^ data[i]) & 255];
  return ~value;
}

// The end of the central directory: where that begins and how many members it lists.
struct Directory {
  std::size_t begin, end, members;
};

Directory find_directory(const std::vector<std::uint8_t>& bytes) {
  constexpr std::size_t size = 22;  // without a comment, which a golden pair has not
  if (bytes.size() < size) Reader::fail("it is no zip");
  const std::size_t end = bytes.size() - size;
  Reader reader(bytes, end, bytes.size());
  if (reader.number(4) != 0x06054b50) Reader::fail("it is no zip, or one with a comment");
  const std::uint32_t disk = reader.number(2), first_disk = reader.number(2);
  const std::uint32_t here = reader.number(2), all = reader.number(2);
  const std::uint32_t length = reader.number(4), begin = reader.number(4);
  if (disk || first_disk || here != all || reader.number(2)) Reader::fail("it is a zip of several parts");
  if (begin > end || length != end - begin) Reader::fail("its directory does not end where the zip does");
  if (all > kMostMembers) Reader::fail("it has more than 1000 members");
  return Directory{begin, end, all};
}

struct Member {
  std::string name;
  std::size_t begin, end;
};

// One entry of the directory, held against the header in front of the member itself.
Member read_entry(const std::vector<std::uint8_t>& bytes, Reader& directory, std::size_t before) {
  if (directory.number(4) != 0x02014b50) Reader::fail("its directory is damaged");
  directory.take(4);  // versions
  const std::uint32_t flags = directory.number(2), method = directory.number(2);
  directory.take(4);  // time
  const std::uint32_t crc = directory.number(4), packed = directory.number(4), size = directory.number(4);
  const std::uint32_t name_length = directory.number(2), extra = directory.number(2), comment = directory.number(2);
  directory.take(8);  // disk, attributes
  const std::size_t offset = directory.number(4);
  Member member;
  if (name_length > kMostName) Reader::fail("it has a member with a name of " + std::to_string(name_length) + " bytes");
  member.name = directory.text(name_length);
  directory.take(extra + comment);
  const std::string where = "its member " + shown(member.name, 100);
  if (method != 0 || packed != size) Reader::fail(where + " is compressed, which a golden pair is not");
  if (flags & ~0x800u) Reader::fail(where + " is encrypted or of unknown size");
  Reader local(bytes, offset, before);
  if (local.number(4) != 0x04034b50) Reader::fail(where + " is not where the directory says");
  local.take(2);
  if (local.number(2) != flags || local.number(2) != method) Reader::fail(where + " is said to be something else");
  local.take(4);
  if (local.number(4) != crc || local.number(4) != packed || local.number(4) != size) {
    Reader::fail(where + " has another size or sum than the directory says");
  }
  const std::uint32_t local_name = local.number(2), local_extra = local.number(2);
  if (local_name != name_length || local.text(local_name) != member.name) Reader::fail(where + " has another name");
  local.take(local_extra);
  member.begin = local.at();
  const std::uint8_t* data = local.take(size);
  member.end = local.at();
  if (crc32(data, size) != crc) Reader::fail(where + " is damaged: its checksum is another one");
  return member;
}

std::map<std::string, Array> read_members(const std::vector<std::uint8_t>& bytes) {
  const Directory directory = find_directory(bytes);
  Reader reader(bytes, directory.begin, directory.end);
  std::map<std::string, Array> arrays;
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < directory.members; ++i) {
    const Member member = read_entry(bytes, reader, directory.begin);
    total += member.end - member.begin;
    if (total > bytes.size()) Reader::fail("its members lie over each other");
    const std::size_t stem = member.name.size() < 4 ? 0 : member.name.size() - 4;
    if (!stem || member.name.compare(stem, 4, ".npy") != 0) {
      Reader::fail("its member " + shown(member.name, 100) + " is no .npy");
    }
    if (!arrays.emplace(member.name.substr(0, stem), read_array(bytes, member.begin, member.end)).second) {
      Reader::fail("its member " + shown(member.name, 100) + " is there twice");
    }
  }
  if (reader.left()) Reader::fail("its directory is longer than its members are many");
  return arrays;
}

}  // namespace

std::map<std::string, Array> parse_golden(const std::vector<std::uint8_t>& bytes, const std::string& path) {
  try {
    return read_members(bytes);
  } catch (const Error& error) {
    throw Error(error.code,
                shown(path, 1000) + " cannot be read (" + error.what() + "); export the bundle again or copy it anew");
  }
}

std::map<std::string, Array> read_golden(const std::string& path) {
  return parse_golden(read_file(path, kMostBytes, kDamaged), path);
}

}  // namespace hiresvit
