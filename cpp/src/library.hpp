// Shared libraries that are opened when the program runs, by path.
#pragma once

#include <string>

namespace hiresvit {

// Opens a library and gives the address of one of its symbols. It stays open to the end of the process: runtimes leave
// threads and thread-local destructors behind. `what` ("ONNX Runtime") and `advice` are for the message. Throws Error
// (missing) if it cannot be opened, and if it lacks the symbol and so is something else.
void* library_symbol(const std::string& path, const char* symbol, const std::string& what, const std::string& advice);

// The first that is given: `asked`, the environment variable, `otherwise`.
std::string first_named(const std::string& asked, const char* variable, const std::string& otherwise);

// The folder of the library, or of the program, that this code lies in; empty if the loader does not know.
std::string own_folder();

}  // namespace hiresvit
