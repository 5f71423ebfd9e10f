#include "context.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "error.hpp"
#include "file.hpp"

namespace hiresvit {
namespace {

constexpr std::uint64_t kMost = 1ull << 31;  // protobuf's own limit
constexpr const char* kCompatibility = "ep_compatibility_info.QNNExecutionProvider";

// Numbers of onnx.proto.
constexpr unsigned kGraph = 7, kMetadata = 14;    // ModelProto
constexpr unsigned kNode = 1;                     // GraphProto
constexpr unsigned kOperator = 4, kAttribute = 5;  // NodeProto
constexpr unsigned kName = 1, kText = 4;          // AttributeProto
constexpr unsigned kKey = 1, kValue = 2;          // StringStringEntryProto

struct NotProtobuf {};

// A message of protobuf: its fields of texts and messages, one after the other; numbers are passed over.
class Message {
 public:
  Message(const std::uint8_t* begin, const std::uint8_t* end) : at_(begin), end_(end) {}

  // Whether there is one more: its number and its bytes.
  bool next(unsigned& number, Message& content) {
    while (at_ != end_) {
      const std::uint64_t tag = varint();
      number = static_cast<unsigned>(tag >> 3);
      switch (tag & 7) {
        case 0: varint(); break;
        case 1: skip(8); break;
        case 5: skip(4); break;
        case 2: {
          const std::uint64_t size = varint();
          content = Message(at_, at_);
          skip(size);
          content.end_ = at_;
          return true;
        }
        default: throw NotProtobuf{};
      }
    }
    return false;
  }
  std::string text() const { return std::string(at_, end_); }
  bool is(const char* wanted) const { return text() == wanted; }

 private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (at_ == end_) throw NotProtobuf{};
      const std::uint8_t byte = *at_++;
      value |= static_cast<std::uint64_t>(byte & 127) << shift;
      if (byte < 128) return value;
    }
    throw NotProtobuf{};
  }
  void skip(std::uint64_t bytes) {
    if (bytes > static_cast<std::uint64_t>(end_ - at_)) throw NotProtobuf{};
    at_ += bytes;
  }

  const std::uint8_t* at_;
  const std::uint8_t* end_;
};

struct Found {
  bool context = false;
  std::string cache, compatibility, stage;
};

// The text of an EPContext's attribute ep_cache_context: a file's name, or the compiled network itself.
void read_attribute(Message message, Found& found) {
  unsigned number = 0;
  Message content(nullptr, nullptr), value(nullptr, nullptr);
  bool named = false;
  while (message.next(number, content)) {
    if (number == kName) named = content.is("ep_cache_context");
    if (number == kText) value = content;
  }
  if (named) found.cache = value.text();
}

void read_node(Message message, Found& found) {
  unsigned number = 0;
  Message content(nullptr, nullptr);
  Found own;
  while (message.next(number, content)) {
    if (number == kOperator) own.context = content.is("EPContext");
    if (number == kAttribute) read_attribute(content, own);
  }
  if (own.context) found.context = true, found.cache = own.cache;
}

void read_entry(Message message, Found& found) {
  unsigned number = 0;
  Message content(nullptr, nullptr);
  std::string key, value;
  while (message.next(number, content)) {
    if (number == kKey) key = content.text();
    if (number == kValue) value = content.text();
  }
  if (key == kCompatibility) found.compatibility = value;
  if (key == "hiresvit.stage") found.stage = value;
}

Found read_model(Message message) {
  Found found;
  unsigned number = 0, inside = 0;
  Message content(nullptr, nullptr), node(nullptr, nullptr);
  while (message.next(number, content)) {
    if (number == kMetadata) read_entry(content, found);
    while (number == kGraph && content.next(inside, node)) {
      if (inside == kNode) read_node(node, found);
    }
  }
  return found;
}

// "v2:backend:SDK:API:arch:soc_model:vtcm:driver"
void read_compatibility(const std::string& said, Context& context) {
  std::vector<std::string> parts(1);
  for (const char letter : said) {
    if (letter == ':') {
      parts.emplace_back();
    } else {
      parts.back() += letter;
    }
  }
  if (parts.size() < 6) return;
  context.qairt = shown(parts[2], 40);
  const bool number = parts[5].size() < 7 && std::all_of(parts[5].begin(), parts[5].end(),
                                                         [](char letter) { return letter >= '0' && letter <= '9'; });
  context.soc_model = number ? std::atoi(parts[5].c_str()) : 0;
}

// The compiled file that a context names, unless it holds it.
void require_beside(const std::string& path, const std::string& name) {
  if (name.size() > 255 || std::any_of(name.begin(), name.end(), [](unsigned char letter) { return letter < 32; })) {
    return;
  }
  const std::size_t slash = path.rfind('/');
  const std::string place = (slash == std::string::npos ? "" : path.substr(0, slash + 1)) + name;
  struct stat about {};
  if (::stat(place.c_str(), &about) != 0 || !S_ISREG(about.st_mode)) {
    throw Error(kDamaged, shown(place, 1000) + " is missing: " + shown(path) + " only names it; copy both, side by side");
  }
}

}  // namespace

Context parse_context(const std::vector<std::uint8_t>& bytes, const std::string& path) {
  Found found;
  try {
    found = read_model(Message(bytes.data(), bytes.data() + bytes.size()));
  } catch (const NotProtobuf&) {
    throw Error(kUsage, shown(path, 1000) + " is no ONNX file; give the one that `hiresvit build --backend qnn` wrote");
  }
  if (!found.context) {
    throw Error(kUsage, shown(path, 1000) + " is a graph and no compiled context: `hiresvit build --backend qnn` makes"
                                            " one of it");
  }
  Context context;
  context.stage = shown(found.stage, 40);
  context.cache = std::move(found.cache);
  read_compatibility(found.compatibility, context);
  if (context.soc_model == 0) {
    throw Error(kDamaged, shown(path, 1000) + " does not say for which chip it was compiled; build it again");
  }
  return context;
}

Context read_context(const std::string& path) {
  Context context = parse_context(read_file(path, kMost, kBadInput), path);
  require_beside(path, context.cache);
  return context;
}

}  // namespace hiresvit
