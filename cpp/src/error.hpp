// What goes wrong: one line that says what was given, what is allowed and what to do, and the command line's code.
#pragma once

#include <stdexcept>
#include <string>

namespace hiresvit {

// As in hiresvit/errors.py.
constexpr int kBadInput = 1;      // a picture, a file
constexpr int kUsage = 2;         // arguments that cannot be served
constexpr int kIllegalGraph = 3;  // a graph that its runtime does not take
constexpr int kFailed = 5;        // a backend, memory
constexpr int kMissing = 6;       // a library, a device
constexpr int kDamaged = 7;       // a bundle that is damaged, edited or of another schema
constexpr int kBusy = 8;          // no exit code: another thread has the engine

struct Error : std::runtime_error {
  int code;
  Error(int code_, const std::string& what) : std::runtime_error(what), code(code_) {}
};

// Text of somebody else's, fit for one line of ours: control characters as '?', at most `most` bytes.
std::string shown(const std::string& text, std::size_t most = 200);

}  // namespace hiresvit
