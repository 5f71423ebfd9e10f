// Pictures in files: PNG and JPEG read as hiresvit/data/image.py reads them, PNG written.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

// Why the program ends, and with which exit code (those of hiresvit.h).
struct Failure : std::runtime_error {
  int code;
  Failure(int code_, const std::string& what) : std::runtime_error(what), code(code_) {}
};

// RGB, rows behind each other.
struct Image {
  int height = 0;
  int width = 0;
  std::vector<std::uint8_t> rgb;
};

// Alpha is dropped and not painted over; 16-bit grey is scaled to 8 bits, or taken as it is where nothing is above 255;
// of 16-bit colours the upper byte is taken; EXIF's orientation is followed. CMYK is refused. Throws Failure.
Image read_image(const std::string& path);

using Colours = std::vector<std::uint8_t>;  // red, green, blue of each class

// Written beside the target and renamed: the old file or the new one, never half. Throws Failure.
void write_rgb(const std::string& path, const Image& image);
// The numbers of the classes: up to 256 as a palette with their colours, else 16-bit grey.
void write_labels(const std::string& path, const std::vector<std::int32_t>& labels, int height, int width,
                  const Colours& colours);

// What stands behind the readers of the two formats.
struct Bytes {
  const std::uint8_t* data;
  std::size_t size;
};
// Refuse, with std::runtime_error, what would cost more than its file can honestly hold.
void check_size(std::size_t width, std::size_t height, std::size_t file_bytes);
// Fill `image` and return the EXIF block of the file, empty where there is none. Throw std::runtime_error.
std::vector<std::uint8_t> read_png(Bytes file, Image& image);
std::vector<std::uint8_t> read_jpeg(Bytes file, Image& image);
