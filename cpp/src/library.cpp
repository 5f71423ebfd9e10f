#include "library.hpp"

#include <dlfcn.h>

#include <cstdlib>

#include "error.hpp"

namespace hiresvit {

void* library_symbol(const std::string& path, const char* symbol, const std::string& what, const std::string& advice) {
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    const char* const why = dlerror();
    throw Error(kMissing, what + " cannot be opened (" + shown(why != nullptr ? why : path) + "); " + advice);
  }
  if (void* const found = dlsym(library, symbol)) return found;
  dlclose(library);
  throw Error(kMissing, path + " is not " + what + ": it lacks " + symbol + "; " + advice);
}

std::string first_named(const std::string& asked, const char* variable, const std::string& otherwise) {
  if (!asked.empty()) return asked;
  const char* const set = std::getenv(variable);
  return set != nullptr && *set != '\0' ? set : otherwise;
}

std::string own_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&own_folder), &info) == 0 || info.dli_fname == nullptr) return "";
  const std::string file = info.dli_fname;
  const std::size_t slash = file.rfind('/');
  return slash == std::string::npos ? "" : file.substr(0, slash);
}

}  // namespace hiresvit
