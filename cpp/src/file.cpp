#include "file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "error.hpp"
#include "sha256.hpp"

namespace hiresvit {

namespace {

class Opened {
 public:
  Opened(const std::string& path, int code_if_absent) : path_(path), code_(code_if_absent) {
    if (path.find('\0') != std::string::npos) throw Error(kUsage, "path " + shown(path) + " holds a zero byte");
    descriptor_ = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (descriptor_ < 0) refuse(errno);
    struct stat found {};
    const bool known = fstat(descriptor_, &found) == 0;
    if (known && S_ISREG(found.st_mode)) return;
    const int error = known ? (S_ISDIR(found.st_mode) ? EISDIR : EINVAL) : errno;
    close(descriptor_);
    refuse(error);
  }
  ~Opened() { close(descriptor_); }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;

  // As many bytes as there still are, at most `most`.
  std::size_t read(std::uint8_t* to, std::size_t most) {
    std::size_t got = 0;
    while (got < most) {
      const ssize_t now = ::read(descriptor_, to + got, most - got);
      if (now < 0 && errno == EINTR) continue;
      if (now < 0) refuse(errno);
      if (now == 0) break;
      got += static_cast<std::size_t>(now);
    }
    return got;
  }

  [[noreturn]] void refuse(int error) const {
    const bool absent = error == ENOENT || error == ENOTDIR || error == EISDIR || error == ELOOP || error == EINVAL;
    const std::string what = error == EINVAL ? "it is a pipe or a device, and no file" : std::strerror(error);
    throw Error(absent ? code_ : kBadInput, shown(path_, 1000) + " cannot be read: " + what);
  }

 private:
  std::string path_;
  int code_;
  int descriptor_ = -1;
};

}  // namespace

std::vector<std::uint8_t> read_file(const std::string& path, std::uint64_t most, int code_if_absent) {
  Opened file(path, code_if_absent);
  std::vector<std::uint8_t> bytes;
  std::size_t got = 0, step = 1 << 16;
  do {
    bytes.resize(got + step);
    const std::size_t now = file.read(bytes.data() + got, step);
    got += now;
    if (got > most) {
      throw Error(code_if_absent, shown(path, 1000) + " has more than " + std::to_string(most) + " bytes");
    }
    if (now < step) break;
    step = got;
  } while (true);
  bytes.resize(got);
  return bytes;
}

FileSum sum_file(const std::string& path, int code_if_absent) {
  Opened file(path, code_if_absent);
  std::vector<std::uint8_t> block(1 << 20);
  Sha256 sum;
  std::uint64_t bytes = 0;
  while (const std::size_t now = file.read(block.data(), block.size())) {
    sum.update(block.data(), now);
    bytes += now;
  }
  return FileSum{bytes, sum.hex()};
}

}  // namespace hiresvit
