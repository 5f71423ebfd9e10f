// The readers of PNG and JPEG on mutations of pictures, the checksums of a PNG's chunks made right again in most.
// fuzz_picture [SECONDS [SEED [PICTURE ...]]]
#include <cstdio>
// libjpeg's header needs the one above.
#include <jpeglib.h>

#include <filesystem>

#include "../program/image.hpp"
#include "fuzz.hpp"

namespace {

Image picture() {
  Image image{13, 17, {}};
  for (int i = 0; i < 13 * 17 * 3; ++i) image.rgb.push_back(static_cast<std::uint8_t>(i * 37));
  return image;
}

fuzz::Bytes png(bool palette) {
  const std::string path = std::filesystem::temp_directory_path() / ("fuzz_picture" + std::to_string(palette) + ".png");
  if (palette) {
    write_labels(path, std::vector<std::int32_t>(12, 1), 3, 4, {0, 0, 0, 9, 8, 7});
  } else {
    write_rgb(path, picture());
  }
  fuzz::Bytes bytes = hiresvit::read_file(path, 1 << 20, hiresvit::kBadInput);
  std::filesystem::remove(path);
  return bytes;
}

fuzz::Bytes jpeg(bool progressive) {
  Image image = picture();
  jpeg_compress_struct state{};
  jpeg_error_mgr errors{};
  state.err = jpeg_std_error(&errors);
  jpeg_create_compress(&state);
  unsigned char* data = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&state, &data, &size);
  state.image_width = 17, state.image_height = 13, state.input_components = 3, state.in_color_space = JCS_RGB;
  jpeg_set_defaults(&state);
  if (progressive) jpeg_simple_progression(&state);
  jpeg_start_compress(&state, TRUE);
  const std::string exif("Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0", 32);
  jpeg_write_marker(&state, JPEG_APP0 + 1, reinterpret_cast<const JOCTET*>(exif.data()),
                    static_cast<unsigned>(exif.size()));
  while (state.next_scanline < state.image_height) {
    JSAMPROW row = image.rgb.data() + std::size_t{17 * 3} * state.next_scanline;
    jpeg_write_scanlines(&state, &row, 1);
  }
  jpeg_finish_compress(&state);
  fuzz::Bytes bytes(data, data + size);
  std::free(data);
  jpeg_destroy_compress(&state);
  return bytes;
}

std::uint32_t big_endian(const fuzz::Bytes& bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | bytes[at + i];
  return value;
}

// The checksums of a PNG's chunks, as far as their lengths lead.
void mend(fuzz::Bytes& bytes) {
  for (std::size_t at = 8; at + 12 <= bytes.size();) {
    const std::size_t length = big_endian(bytes, at);
    if (length > bytes.size() - at - 12) return;
    const std::uint32_t sum = fuzz::crc32(bytes.data() + at + 4, length + 4);
    for (std::size_t i = 0; i < 4; ++i) bytes[at + 8 + length + i] = static_cast<std::uint8_t>(sum >> (24 - 8 * i));
    at += 12 + length;
  }
}

bool is_png(const fuzz::Bytes& bytes) { return bytes.size() > 3 && bytes[1] == 'P' && bytes[2] == 'N'; }

}  // namespace

int main(int count, char** given) {
  int turn = 0;
  return fuzz::run(
      count, given, {png(false), png(true), jpeg(false), jpeg(true)},
      {"IHDR", "PLTE", "IDAT", "IEND", "tRNS", "eXIf", "\x01\x10", "\xff\xc0", "\xff\xc2", "\xff\xda", "\xff\xe1"},
      [&](fuzz::Bytes& bytes) {
        if (turn++ < 4) bytes = std::vector<fuzz::Bytes>{png(false), png(true), jpeg(false), jpeg(true)}[turn - 1];
        if (is_png(bytes) && turn % 4) mend(bytes);
      },
      [](const fuzz::Bytes& bytes) {
        Image image;
        try {
          const Bytes file{bytes.data(), bytes.size()};
          is_png(bytes) ? read_png(file, image) : read_jpeg(file, image);
        } catch (const std::runtime_error& error) {
          throw hiresvit::Error(hiresvit::kDamaged, error.what());
        }
        const auto pixels = static_cast<std::size_t>(image.height) * static_cast<std::size_t>(image.width);
        if (image.height < 1 || image.width < 1 || image.rgb.size() != 3 * pixels) std::abort();
      });
}
