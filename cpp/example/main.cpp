// Labels of a picture: hiresvit-example BUNDLE picture.ppm labels.pgm
//
// PPM and PGM are a line of text with raw bytes behind it; a camera would give the same bytes without a file.
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "hiresvit/hiresvit.hpp"

namespace {

struct Rgb {
  int height = 0, width = 0;
  std::vector<std::uint8_t> bytes;
};

Rgb read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string kind;
  int most = 0;
  Rgb picture;
  file >> kind >> picture.width >> picture.height >> most;
  file.get();
  constexpr int largest = 1 << 14;
  if (kind != "P6" || most != 255 || picture.width < 1 || picture.height < 1 || picture.width > largest ||
      picture.height > largest) {
    throw std::runtime_error(path + " is no PPM (P6) of 8 bits");
  }
  picture.bytes.resize(std::size_t{3} * static_cast<std::size_t>(picture.width) * static_cast<std::size_t>(picture.height));
  file.read(reinterpret_cast<char*>(picture.bytes.data()), static_cast<std::streamsize>(picture.bytes.size()));
  if (!file) throw std::runtime_error(path + " ends early");
  return picture;
}

void run(const std::string& bundle, const std::string& source, const std::string& target) {
  hiresvit::Engine engine(bundle);
  const Rgb picture = read_ppm(source);
  std::vector<std::uint8_t> labels(picture.bytes.size() / 3);
  engine.segment(hiresvit::rgb(picture.bytes.data(), picture.height, picture.width), labels.data());

  std::ofstream file(target, std::ios::binary);
  file << "P5\n" << picture.width << ' ' << picture.height << "\n255\n";
  file.write(reinterpret_cast<const char*>(labels.data()), static_cast<std::streamsize>(labels.size()));
  if (!file.flush()) throw std::runtime_error("cannot write " + target);
  const auto info = engine.info();
  std::printf("%s on %s: %d classes, first pixel %d\n", info.model, info.backend, info.num_classes, labels[0]);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: hiresvit-example BUNDLE picture.ppm labels.pgm\n");
    return HIRESVIT_USAGE;
  }
  try {
    run(argv[1], argv[2], argv[3]);
  } catch (const hiresvit::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return error.code();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return HIRESVIT_BAD_INPUT;
  }
  return 0;
}
