#include "image.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace {

constexpr std::size_t kMostBytes = std::size_t{1} << 30;
// hiresvit/data/image.py says why.
constexpr std::size_t kMostPixels = std::size_t{1} << 28;
constexpr std::size_t kFewPixels = 52'000'000;
constexpr std::size_t kPixelsPerByte = 100;

class Descriptor {
 public:
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  ~Descriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

std::vector<std::uint8_t> read_file(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  struct stat about {};
  if (file.get() < 0 || ::fstat(file.get(), &about) != 0) {
    throw Failure(1, "cannot read " + path + ": " + std::strerror(errno));
  }
  if (!S_ISREG(about.st_mode)) throw Failure(1, path + " is no file; give the path of a PNG or JPEG");
  if (static_cast<std::size_t>(about.st_size) > kMostBytes) throw Failure(1, path + " has more than 1 GiB; shrink it");
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(about.st_size));
  std::size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t got = ::read(file.get(), bytes.data() + have, bytes.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw Failure(1, "cannot read " + path + ": " + std::strerror(errno));
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  bytes.resize(have);
  return bytes;
}

// The orientation (EXIF 2.32, tag 274) of a TIFF header with its first directory; 1, upright, where there is none.
int orientation_of(const std::vector<std::uint8_t>& exif) {
  const bool little = exif.size() >= 8 && exif[0] == 'I' && exif[1] == 'I';
  if (!little && !(exif.size() >= 8 && exif[0] == 'M' && exif[1] == 'M')) return 1;
  const auto number = [&](std::size_t at, std::size_t bytes) -> std::size_t {
    if (at > exif.size() || exif.size() - at < bytes) return 0;
    std::size_t value = 0;
    for (std::size_t index = 0; index < bytes; ++index) {
      value |= std::size_t{exif[at + index]} << 8 * (little ? index : bytes - 1 - index);
    }
    return value;
  };
  const std::size_t directory = number(4, 4);
  for (std::size_t entry = 0; entry < number(directory, 2); ++entry) {
    const std::size_t at = directory + 2 + 12 * entry;
    if (number(at, 2) == 274 && number(at + 2, 2) == 3) return static_cast<int>(number(at + 8, 2));
  }
  return 1;
}

Image turned(Image image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  const bool lies = orientation >= 5;
  const int height = image.height, width = image.width;
  Image out{lies ? width : height, lies ? height : width, std::vector<std::uint8_t>(image.rgb.size())};
  std::uint8_t* to = out.rgb.data();
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x, to += 3) {
      int row = lies ? x : y, column = lies ? y : x;
      if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7) row = height - 1 - row;
      if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8) column = width - 1 - column;
      const std::size_t from = static_cast<std::size_t>(row) * static_cast<std::size_t>(width) +
                               static_cast<std::size_t>(column);
      std::copy_n(image.rgb.data() + 3 * from, 3, to);
    }
  }
  return out;
}

}  // namespace

void check_size(std::size_t width, std::size_t height, std::size_t file_bytes) {
  const std::string shape = std::to_string(width) + "x" + std::to_string(height);
  const std::size_t pixels = width * height;  // either has at most 31 bits
  if (pixels == 0) throw std::runtime_error("it has no pixels");
  if (pixels > kMostPixels) {
    throw std::runtime_error(shape + " are more than " + std::to_string(kMostPixels) + " pixels: cut or shrink it");
  }
  if (std::max(width, height) > 65536) throw std::runtime_error(shape + " is longer than 65536: cut or shrink it");
  if (pixels > std::max(kFewPixels, kPixelsPerByte * file_bytes)) {
    throw std::runtime_error(shape + " pixels out of " + std::to_string(file_bytes) + " bytes are no photo: shrink it");
  }
}

Image read_image(const std::string& path) {
  const std::vector<std::uint8_t> bytes = read_file(path);
  const Bytes file{bytes.data(), bytes.size()};
  const bool png = bytes.size() > 8 && std::memcmp(bytes.data(), "\x89PNG\r\n\x1a\n", 8) == 0;
  const bool jpeg = bytes.size() > 3 && std::memcmp(bytes.data(), "\xff\xd8\xff", 3) == 0;
  try {
    if (bytes.empty()) throw std::runtime_error("it is empty");
    if (!png && !jpeg) throw std::runtime_error("it is neither");
    Image image;
    const std::vector<std::uint8_t> exif = png ? read_png(file, image) : read_jpeg(file, image);
    return turned(std::move(image), orientation_of(exif));
  } catch (const std::bad_alloc&) {
    throw Failure(1, path + ": there is no memory for this picture; shrink it");
  } catch (const std::runtime_error& error) {
    throw Failure(1, path + ": not a readable image (" + error.what() + "); give a JPEG or PNG");
  }
}
