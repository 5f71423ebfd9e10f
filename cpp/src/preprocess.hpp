// From a picture to what a network or its contract takes: hiresvit/data/preprocess.py, bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "picture.hpp"
#include "spec.hpp"
#include "threads.hpp"

namespace hiresvit {

// The part of the input that shows a picture of a size.
Region valid_region(Size size, const PreprocessSpec& spec, Size imgsz);

// For resize "slide": the size that a picture of a size is scaled to before windows are cut from it.
Size sliding_size(Size size, const PreprocessSpec& spec, Size imgsz);

// Keeps its buffers, which grow with the picture. Not for two threads at once.
class Preprocess {
 public:
  // Throws Error (usage) for a spec that cannot be served. `threads` must live as long.
  Preprocess(const PreprocessSpec& spec, Size imgsz, Threads& threads);
  ~Preprocess();
  Preprocess(Preprocess&&) noexcept;
  Preprocess& operator=(Preprocess&&) noexcept;

  // Contract tensor: (3, H, W) floats, normalised. Throws Error (bad input) for a picture that is none.
  void tensor(const Picture& picture, float* nchw);

  // Contract image: the network's picture in a layout, into planes[0] and for NV12 planes[1], rows `strides` apart.
  void pixels(const Picture& picture, Pixels layout, Yuv yuv, std::uint8_t* const planes[2],
              const std::ptrdiff_t strides[2]);

  // Slide: scales a picture once (floats of 3 x height x width, normalised, kept here), then cuts windows out of it.
  Size prepare_windows(const Picture& picture);
  void window(int top, int left, float* nchw) const;

  Region region(int height, int width) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Contract camera: the caller's picture in the contract's layout, into planes with rows `strides` apart. The same
// layout is copied, other channel orders are exchanged, NV12 becomes RGB and RGB NV12 as hiresvit/data/pixels.py has
// it. Throws Error (bad input) for a picture that is none, or of odd sides where NV12 is wanted.
void convert_pixels(const Picture& picture, Pixels layout, Yuv yuv, std::uint8_t* const planes[2],
                    const std::ptrdiff_t strides[2], Threads& threads);

}  // namespace hiresvit
