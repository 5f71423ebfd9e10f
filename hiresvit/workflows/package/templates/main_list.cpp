// A picture's @{what} by hiresvit: app BUNDLE PICTURE.ppm
//
// An app reads no PPM: it passes its camera's memory on as @{camera}
#include <cstdint>
#include <fstream>
#include <iostream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <hiresvit/hiresvit.hpp>

namespace {

struct Ppm {
  int height = 0, width = 0;
  std::vector<std::uint8_t> pixels;
};

// A binary PPM of 8 bits without comments, as `convert` and Pillow write it.
Ppm read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string kind;
  int most = 0;
  Ppm picture;
  if (!(file >> kind >> picture.width >> picture.height >> most) || kind != "P6" || most != 255 || picture.width < 1 ||
      picture.height < 1 || picture.width > std::numeric_limits<int>::max() / 3 / picture.height) {
    throw std::runtime_error(path + " is no binary PPM of 8 bits");
  }
  file.get();
  picture.pixels.resize(std::size_t{3} * picture.width * picture.height);
  if (!file.read(reinterpret_cast<char*>(picture.pixels.data()), static_cast<std::streamsize>(picture.pixels.size()))) {
    throw std::runtime_error(path + " ends too early");
  }
  return picture;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: app BUNDLE PICTURE.ppm\n";
    return 2;
  }
  try {
    hiresvit::Options options;
    options.graph = "@{graph}";  // "": the one that suits the backend
    hiresvit::Engine engine(argv[1], options);
    const Ppm picture = read_ppm(argv[2]);
    const auto given = hiresvit::rgb(picture.pixels.data(), picture.height, picture.width);
@{lines}
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
