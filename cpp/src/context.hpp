// The ONNX file of a context for Qualcomm's HTP: a graph of one node, EPContext, that names what was compiled.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hiresvit {

struct Context {
  int soc_model = 0;  // Qualcomm's number of the chip that it was compiled for
  std::string qairt;  // the version of Qualcomm's libraries that compiled it, "2.51.0"
  std::string stage;  // the graph of a bundle that it was compiled from, "htp_a16w8"; empty if it does not say
  std::string cache;  // the name of the compiled file, or that itself
};

// Of the bytes of a file; `path` is for the message. Throws Error: usage for what is no context, damaged for one that
// does not say its chip.
Context parse_context(const std::vector<std::uint8_t>& bytes, const std::string& path);

// The same of a file; bad input if it is not there, damaged if the compiled file that it names is not beside it.
Context read_context(const std::string& path);

}  // namespace hiresvit
