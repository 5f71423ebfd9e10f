// JPEG through libjpeg-turbo, whose errors are jumps: what jumps has only plain variables.
#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "image.hpp"
// libjpeg's headers need size_t and FILE before them.
#include <jpeglib.h>

#include <jerror.h>

namespace {

constexpr std::size_t kMostScanned = std::size_t{1} << 32;  // pixels times scans, as in hiresvit/data/image.py

struct Reading {
  jpeg_error_mgr errors;  // first: libjpeg hands back its address
  std::jmp_buf jump;
  char error[JMSG_LENGTH_MAX];
};

void fail(j_common_ptr info) {
  auto* const reading = reinterpret_cast<Reading*>(info->err);
  info->err->format_message(info, reading->error);
  std::longjmp(reading->jump, 1);
}

void listen(j_common_ptr info, int level) {
  // Of damage that can be decoded Pillow says nothing either; a file that ends too early it refuses.
  if (level < 0 && info->err->msg_code == JWRN_JPEG_EOF) fail(info);
}

std::size_t count_scans(Bytes file) {
  std::size_t scans = 0;
  for (std::size_t at = 0; at + 1 < file.size; ++at) scans += file.data[at] == 0xff && file.data[at + 1] == 0xda;
  return scans;
}

void check_header(const jpeg_decompress_struct& info, Bytes file) {
  if (info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK) {
    throw std::runtime_error("its colours are CMYK: save it as RGB");
  }
  if (info.num_components != 1 && info.num_components != 3) throw std::runtime_error("it is neither grey nor RGB");
  check_size(info.image_width, info.image_height, file.size);
  if (count_scans(file) * info.image_width * info.image_height > kMostScanned) {
    throw std::runtime_error("it has too many scans for a photo: save it as a plain JPEG");
  }
}

using Exif = std::vector<std::uint8_t>;

void take_exif(const jpeg_decompress_struct& info, Exif& exif) {
  for (jpeg_saved_marker_ptr marker = info.marker_list; marker != nullptr && exif.empty(); marker = marker->next) {
    if (marker->data_length > 6 && std::memcmp(marker->data, "Exif\0\0", 6) == 0) {
      exif.assign(marker->data + 6, marker->data + marker->data_length);
    }
  }
}

bool read_or_jump(jpeg_decompress_struct& info, Reading& reading, Bytes file, Image& image, Exif& exif) {
  if (setjmp(reading.jump) != 0) return false;
  jpeg_mem_src(&info, file.data, static_cast<unsigned long>(file.size));
  jpeg_save_markers(&info, JPEG_APP0 + 1, 0xffff);
  jpeg_read_header(&info, TRUE);
  check_header(info, file);
  info.out_color_space = JCS_RGB;
  jpeg_start_decompress(&info);
  image.width = static_cast<int>(info.output_width), image.height = static_cast<int>(info.output_height);
  const std::size_t row = 3 * static_cast<std::size_t>(info.output_width);
  image.rgb.resize(row * info.output_height);
  while (info.output_scanline < info.output_height) {
    JSAMPROW to = image.rgb.data() + info.output_scanline * row;
    jpeg_read_scanlines(&info, &to, 1);
  }
  take_exif(info, exif);  // before the end, which forgets them
  jpeg_finish_decompress(&info);
  return true;
}

}  // namespace

Exif read_jpeg(Bytes file, Image& image) {
  jpeg_decompress_struct info{};
  Reading reading{};
  info.err = jpeg_std_error(&reading.errors);
  reading.errors.error_exit = fail;
  reading.errors.emit_message = listen;
  if (setjmp(reading.jump) != 0) throw std::runtime_error(reading.error);
  jpeg_create_decompress(&info);
  struct Destroy {
    jpeg_decompress_struct* info;
    ~Destroy() { jpeg_destroy_decompress(info); }
  } const destroy{&info};
  Exif exif;
  if (!read_or_jump(info, reading, file, image, exif)) throw std::runtime_error(reading.error);
  return exif;
}
