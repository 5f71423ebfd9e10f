// The ONNX file of a context for Qualcomm's HTP: a graph of one node, EPContext, that names what was compiled.
#pragma once

#include <string>

namespace hiresvit {

struct Context {
  int soc_model = 0;  // Qualcomm's number of the chip that it was compiled for
  std::string qairt;  // the version of Qualcomm's libraries that compiled it, "2.51.0"
  std::string stage;  // the graph of a bundle that it was compiled from, "htp_a16w8"; empty if it does not say
};

// Reads no more of the file than where things lie. Throws Error: bad input for a file that is not there, usage for one
// that is no context, damaged for one that does not say its chip or lacks the compiled file beside it.
Context read_context(const std::string& path);

}  // namespace hiresvit
