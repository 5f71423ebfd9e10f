#include "geometry.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "error.hpp"

namespace hiresvit {

namespace {

using Wide = std::int64_t;

std::string text(Size size) { return std::to_string(size.height) + "x" + std::to_string(size.width); }

Wide whole(double value, Size size) {
  if (!(value >= 0 && value < 1e15)) throw Error(kBadInput, "picture of " + text(size) + " cannot be scaled");
  return static_cast<Wide>(value);
}

// ImageNet's protocol: scaled until `cover` is covered, the centre taken.
void place_crop(Size size, const PreprocessSpec& spec, Size imgsz, Placement& out) {
  const Wide tall = whole(std::floor(imgsz.height / spec.crop_pct), size);
  const Wide broad = whole(std::floor(imgsz.width / spec.crop_pct), size);
  auto& scaled = out.sizes[0];
  if (spec.rounds) {  // halves to even, as Python's round and the default of the processor have it
    const double scale = std::max(static_cast<double>(tall) / size.height, static_cast<double>(broad) / size.width);
    scaled = {whole(std::nearbyint(size.height * scale), size), whole(std::nearbyint(size.width * scale), size)};
  } else if (tall * size.width >= broad * size.height) {
    scaled = {tall, tall * size.width / size.height};
  } else {
    scaled = {broad * size.height / size.width, broad};
  }
  const auto start = [&](Wide over) {
    return spec.rounds ? over / 2 : static_cast<Wide>(std::nearbyint(static_cast<double>(over) / 2));
  };
  out.top = start(scaled.height - imgsz.height);
  out.left = start(scaled.width - imgsz.width);
}

// Scaled until the whole picture fits, then each side up to a multiple.
void place_whole(Size size, const PreprocessSpec& spec, Size imgsz, Placement& out) {
  const double scale =
      std::min(static_cast<double>(imgsz.height) / size.height, static_cast<double>(imgsz.width) / size.width);
  const double more = spec.rounds ? 0.5 : 0;
  const auto fit = [&](int side, int most) {
    return std::min(std::max(static_cast<int>(side * scale + more), 1), most);
  };
  const auto align = [&](int side, int most) {
    return std::min((side + spec.divisor - 1) / spec.divisor * spec.divisor, most);
  };
  const Size fitted{fit(size.height, imgsz.height), fit(size.width, imgsz.width)};
  const Size aligned{align(fitted.height, imgsz.height), align(fitted.width, imgsz.width)};
  out.sizes[0] = {fitted.height, fitted.width};
  out.sizes[1] = {aligned.height, aligned.width};
  out.count = 2;
  out.region = Region{0, 0, aligned.height, aligned.width};
  if (spec.resize == Resize::letterbox) {
    out.region.top = (imgsz.height - aligned.height) / 2;
    out.region.left = (imgsz.width - aligned.width) / 2;
  }
}

}  // namespace

Size sliding_size(Size size, const PreprocessSpec& spec, Size imgsz) {
  // The largest of: as it is, the shorter side to what is asked, and what makes each side as long as the input's.
  Wide longer = 1, shorter = 1;
  const auto take = [&](Wide up, Wide down) {
    if (up * shorter > longer * down) longer = up, shorter = down;
  };
  if (spec.short_side) longer = *spec.short_side, shorter = std::min(size.height, size.width);
  take(imgsz.height, size.height);
  take(imgsz.width, size.width);
  const double scale = static_cast<double>(longer) / static_cast<double>(shorter);
  const auto side = [&](int length) {
    return spec.rounds ? whole(length * scale + 0.5, size) : length * longer / shorter;
  };
  const Wide height = side(size.height), width = side(size.width);
  if (height < 1 || width < 1 || height > kMostSide || width > kMostSide) {
    throw Error(kBadInput, "picture of " + text(size) + " would become " + std::to_string(height) + "x" +
                               std::to_string(width) + " for windows of " + text(imgsz) +
                               "; each side must be from 1 to " + std::to_string(kMostSide));
  }
  return Size{static_cast<int>(height), static_cast<int>(width)};
}

Placement place(Size size, const PreprocessSpec& spec, Size imgsz) {
  if (size.height < 1 || size.width < 1 || size.height > kMostSide || size.width > kMostSide) {
    throw Error(kBadInput, "picture of " + text(size) + ": each side must be from 1 to " + std::to_string(kMostSide));
  }
  Placement out{{{imgsz.height, imgsz.width}, {0, 0}}, 1, 0, 0, Region{0, 0, imgsz.height, imgsz.width}};
  switch (spec.resize) {
    case Resize::stretch: break;
    case Resize::crop: place_crop(size, spec, imgsz, out); break;
    case Resize::keep:
    case Resize::letterbox: place_whole(size, spec, imgsz, out); break;
    case Resize::slide: {
      const Size scaled = sliding_size(size, spec, imgsz);
      out.sizes[0] = {scaled.height, scaled.width};
      out.region = Region{0, 0, scaled.height, scaled.width};
    }
  }
  return out;
}

Region valid_region(Size size, const PreprocessSpec& spec, Size imgsz) {
  if (spec.resize == Resize::slide) {
    throw Error(kUsage, "resize=slide makes several inputs of a picture: cut windows from it");
  }
  return place(size, spec, imgsz).region;
}

void check_spec(const PreprocessSpec& spec, Size imgsz) {
  const auto refuse = [](const std::string& why) { throw Error(kUsage, why); };
  const auto side = [](int value) { return value >= 1 && value <= kMostSide; };
  if (!side(imgsz.height) || !side(imgsz.width)) {
    refuse("imgsz " + text(imgsz) + ": each side must be from 1 to " + std::to_string(kMostSide));
  }
  if (!(spec.crop_pct > 0 && spec.crop_pct <= 1)) {
    refuse("crop_pct " + std::to_string(spec.crop_pct) + ": it must be over 0 and at most 1");
  }
  if (!side(spec.divisor)) refuse("divisor " + std::to_string(spec.divisor) + ": it must be from 1 to 65536");
  if (spec.short_side && !side(*spec.short_side)) {
    refuse("short_side " + std::to_string(*spec.short_side) + ": it must be from 1 to 65536");
  }
  if (spec.stride && (!side(spec.stride->height) || !side(spec.stride->width))) {
    refuse("stride " + text(*spec.stride) + ": it must be two whole numbers from 1 to 65536");
  }
  for (int c = 0; c < 3; ++c) {
    const double mean = spec.mean[static_cast<std::size_t>(c)], std = spec.std[static_cast<std::size_t>(c)];
    if (!std::isfinite(mean)) refuse("mean: it must be three finite numbers");
    if (!std::isfinite(std) || std <= 0) refuse("std: it must be three finite numbers over 0");
  }
}

}  // namespace hiresvit
