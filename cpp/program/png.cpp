// PNG through libpng, whose errors are jumps: what jumps has only plain variables.
#include <png.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <memory>

#include "image.hpp"

namespace {

struct Reading {
  Bytes file;
  std::size_t at = 0;
  Image* image = nullptr;
  std::vector<std::uint8_t> grey;  // of 16 bits, as it lies in the file
  std::vector<png_bytep> rows;
  std::vector<std::uint8_t> exif;
  bool upper_bytes = false;  // 16-bit colours, of which the upper byte is taken
  char error[160] = "";
};

void fail(png_structp png, png_const_charp message) {
  auto* const error = static_cast<char*>(png_get_error_ptr(png));
  std::snprintf(error, sizeof(Reading::error), "%s", message);
  png_longjmp(png, 1);
}

void ignore(png_structp, png_const_charp) {}

void take(png_structp png, png_bytep to, std::size_t size) {
  auto* const reading = static_cast<Reading*>(png_get_io_ptr(png));
  if (reading->file.size - reading->at < size) png_error(png, "it ends too early");
  std::memcpy(to, reading->file.data + reading->at, size);
  reading->at += size;
}

// What the file's pixels have to become: RGB of 8 bits, or 16-bit grey as it is.
bool set_transforms(png_structp png, png_infop info, Reading& reading) {
  const int colour = png_get_color_type(png, info), depth = png_get_bit_depth(png, info);
  const bool wide_grey = colour == PNG_COLOR_TYPE_GRAY && depth == 16;
  reading.upper_bytes = depth == 16 && !wide_grey;
  if (colour == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (colour == PNG_COLOR_TYPE_GRAY && depth < 8) png_set_expand_gray_1_2_4_to_8(png);
  if (reading.upper_bytes) png_set_strip_16(png);
  if ((colour & PNG_COLOR_MASK_ALPHA) != 0 || colour == PNG_COLOR_TYPE_PALETTE) png_set_strip_alpha(png);
  if ((colour & PNG_COLOR_MASK_COLOR) == 0 && !wide_grey) png_set_gray_to_rgb(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  return wide_grey;
}

void read_steps(png_structp png, png_infop info, Reading& reading) {
  png_read_info(png, info);
  const std::size_t width = png_get_image_width(png, info), height = png_get_image_height(png, info);
  check_size(width, height, reading.file.size);
  const bool wide_grey = set_transforms(png, info, reading);
  const std::size_t row = png_get_rowbytes(png, info);
  if (row != width * (wide_grey ? 2 : 3)) png_error(png, "its pixels are of an unusual kind");
  reading.image->width = static_cast<int>(width), reading.image->height = static_cast<int>(height);
  reading.image->rgb.resize(3 * width * height);
  if (wide_grey) reading.grey.resize(2 * width * height);
  reading.rows.resize(height);
  std::uint8_t* const start = wide_grey ? reading.grey.data() : reading.image->rgb.data();
  for (std::size_t y = 0; y < height; ++y) reading.rows[y] = start + y * row;
  png_read_image(png, reading.rows.data());
  png_read_end(png, info);
  png_uint_32 count = 0;
  png_bytep bytes = nullptr;
  if (png_get_eXIf_1(png, info, &count, &bytes) != 0 && bytes != nullptr) reading.exif.assign(bytes, bytes + count);
}

bool read_or_jump(png_structp png, png_infop info, Reading& reading) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  read_steps(png, info, reading);
  return true;
}

// hiresvit/data/image.py: values up to 255 are taken as they are, else all are scaled.
void narrow(const std::vector<std::uint8_t>& grey, std::vector<std::uint8_t>& rgb) {
  bool small = true;
  for (std::size_t index = 0; index < grey.size(); index += 2) small = small && grey[index] == 0;
  for (std::size_t index = 0; index < grey.size() / 2; ++index) {
    const std::uint32_t value = std::uint32_t{grey[2 * index]} << 8 | grey[2 * index + 1];
    std::fill_n(rgb.begin() + static_cast<std::ptrdiff_t>(3 * index), 3,
                static_cast<std::uint8_t>(small ? value : (value * 255 + 32767) / 65535));
  }
}

struct Writing {
  std::FILE* file;
  int width, height, depth, colour;
  const std::uint8_t* pixels;
  std::size_t row;
  const png_color* palette;
  int entries;
  char error[sizeof(Reading::error)];
};

bool write_or_jump(png_structp png, png_infop info, const Writing& writing) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  png_init_io(png, writing.file);
  png_set_IHDR(png, info, static_cast<png_uint_32>(writing.width), static_cast<png_uint_32>(writing.height),
               writing.depth, writing.colour, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  if (writing.palette != nullptr) png_set_PLTE(png, info, writing.palette, writing.entries);
  png_set_compression_level(png, 3);
  png_write_info(png, info);
  for (int y = 0; y < writing.height; ++y) {
    png_write_row(png, writing.pixels + static_cast<std::size_t>(y) * writing.row);
  }
  png_write_end(png, info);
  return true;
}

std::string write_all(Writing& writing) {
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, writing.error, fail, ignore);
  png_infop info = png != nullptr ? png_create_info_struct(png) : nullptr;
  if (info == nullptr) return "there is no memory";
  const bool written = write_or_jump(png, info, writing);
  png_destroy_write_struct(&png, &info);
  return written ? "" : writing.error;
}

void write_png(const std::string& path, Writing writing) {
  const std::string temporary = path + ".tmp-" + std::to_string(::getpid());
  writing.file = std::fopen(temporary.c_str(), "wbx");
  if (writing.file == nullptr) throw Failure(1, "cannot write " + path + ": " + std::strerror(errno));
  std::string error = write_all(writing);
  if (std::fclose(writing.file) != 0 && error.empty()) error = std::strerror(errno);
  if (error.empty() && std::rename(temporary.c_str(), path.c_str()) != 0) error = std::strerror(errno);
  if (error.empty()) return;
  std::remove(temporary.c_str());
  throw Failure(1, "cannot write " + path + ": " + error);
}

}  // namespace

std::vector<std::uint8_t> read_png(Bytes file, Image& image) {
  Reading reading;
  reading.file = file, reading.image = &image;
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, reading.error, fail, ignore);
  png_infop info = png != nullptr ? png_create_info_struct(png) : nullptr;
  if (info == nullptr) throw std::bad_alloc();
  struct Destroy {
    png_structpp png;
    png_infopp info;
    ~Destroy() { png_destroy_read_struct(png, info, nullptr); }
  } const destroy{&png, &info};
  png_set_read_fn(png, &reading, take);
  if (!read_or_jump(png, info, reading)) throw std::runtime_error(reading.error);
  if (!reading.grey.empty()) narrow(reading.grey, image.rgb);
  if (reading.upper_bytes && std::all_of(image.rgb.begin(), image.rgb.end(), [](int byte) { return byte == 0; })) {
    throw std::runtime_error("its 16-bit colours are all below 256, which is black: save them as 8 bits");
  }
  return std::move(reading.exif);
}

void write_rgb(const std::string& path, const Image& image) {
  write_png(path, {nullptr, image.width, image.height, 8, PNG_COLOR_TYPE_RGB, image.rgb.data(),
                   3 * static_cast<std::size_t>(image.width), nullptr, 0, ""});
}

void write_labels(const std::string& path, const std::vector<std::int32_t>& labels, int height, int width,
                  const Colours& colours) {
  const bool narrow = colours.size() <= 3 * 256;
  std::vector<std::uint8_t> pixels;
  pixels.reserve(labels.size() * (narrow ? 1 : 2));
  for (const std::int32_t label : labels) {
    if (!narrow) pixels.push_back(static_cast<std::uint8_t>(label >> 8));
    pixels.push_back(static_cast<std::uint8_t>(label));
  }
  png_color palette[256] = {};  // all of it: of fewer some readers do not unpack the bits
  if (narrow) std::memcpy(palette, colours.data(), colours.size());
  write_png(path, {nullptr, width, height, narrow ? 8 : 16, narrow ? PNG_COLOR_TYPE_PALETTE : PNG_COLOR_TYPE_GRAY,
                   pixels.data(), pixels.size() / static_cast<std::size_t>(height), narrow ? palette : nullptr,
                   narrow ? 256 : 0, ""});
}
