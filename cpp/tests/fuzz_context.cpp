// The reader of compiled contexts on mutations of an ONNX file. fuzz_context [SECONDS [SEED [CONTEXT.onnx ...]]]
#include "context.hpp"
#include "fuzz.hpp"

namespace {

// A field of protobuf with a text or a message in it.
std::string field(unsigned number, const std::string& content) {
  std::string out(1, static_cast<char>(number << 3 | 2));
  for (std::size_t size = content.size(); true; size >>= 7) {
    out += static_cast<char>((size & 127) | (size > 127 ? 128 : 0));
    if (size < 128) return out + content;
  }
}

std::string entry(const std::string& key, const std::string& value) {
  return field(14, field(1, key) + field(2, value));
}

}  // namespace

int main(int count, char** given) {
  const std::string attribute = field(5, field(1, "ep_cache_context") + field(4, "tiny_qnn.bin"));
  const std::string node = field(1, field(4, "EPContext") + attribute);
  const std::string model = "\x08\x0a" + field(7, node + field(2, "graph")) + entry("hiresvit.stage", "htp_a16w8") +
                            entry("ep_compatibility_info.QNNExecutionProvider", "v2:6:2.51.0:5.51.0:73:58:2:0");
  const std::vector<std::string> words{"EPContext", "v2:6:2.51.0:5.51.0:73:58:2:0", ":", "\n", "\x72", "\x3a", "\x0a"};
  return fuzz::run(
      count, given, {fuzz::Bytes(model.begin(), model.end())}, words, [](fuzz::Bytes&) {},
      [](const fuzz::Bytes& bytes) {
        const hiresvit::Context context = hiresvit::parse_context(bytes, "tiny.onnx");
        if (context.soc_model <= 0 || context.cache.size() > bytes.size()) std::abort();
      });
}
