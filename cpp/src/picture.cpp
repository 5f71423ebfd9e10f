#include "picture.hpp"

namespace hiresvit {

std::string shown(const std::string& text, std::size_t most) {
  std::string line = text.substr(0, most);
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return line;
}

void check_picture(const Picture& picture) {
  const auto refuse = [&](const std::string& why) {  // makes its text only here: a frame allocates nothing
    throw Error(kBadInput, "picture of " + std::to_string(picture.height) + "x" + std::to_string(picture.width) + ": " + why);
  };
  if (picture.height < 1 || picture.width < 1 || picture.height > kMostSide || picture.width > kMostSide) {
    refuse("each side must be from 1 to " + std::to_string(kMostSide) + " pixels");
  }
  const bool nv12 = picture.pixels == Pixels::nv12;
  if (nv12 && (picture.height % 2 || picture.width % 2)) refuse("both sides of NV12 must be even");
  if (nv12 && picture.yuv == Yuv::none) refuse("NV12 needs its colours: bt601, bt709, bt601-full or bt709-full");
  const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(picture.width) * channels(picture.pixels);
  for (int plane = 0; plane < (nv12 ? 2 : 1); ++plane) {
    if (!picture.planes[plane]) refuse("plane " + std::to_string(plane) + " is null; give where its pixels lie");
    if (picture.strides[plane] < row) {
      refuse("the stride of plane " + std::to_string(plane) + " is " + std::to_string(picture.strides[plane]) +
             " bytes, a row has " + std::to_string(row));
    }
  }
}

Picture packed_picture(Pixels pixels, Yuv yuv, int height, int width, const std::uint8_t* data) {
  Picture picture;
  picture.pixels = pixels;
  picture.yuv = yuv;
  picture.height = height;
  picture.width = width;
  picture.planes[0] = data;
  picture.strides[0] = static_cast<std::ptrdiff_t>(width) * channels(pixels);
  if (pixels == Pixels::nv12 && data && height > 0 && width > 0) {
    picture.planes[1] = data + static_cast<std::ptrdiff_t>(height) * width;
    picture.strides[1] = width;
  }
  return picture;
}

std::size_t packed_bytes(Pixels pixels, int height, int width) {
  if (height < 1 || width < 1) return 0;
  const std::size_t all = static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
  return pixels == Pixels::nv12 ? all + all / 2 : all * static_cast<std::size_t>(channels(pixels));
}

}  // namespace hiresvit
