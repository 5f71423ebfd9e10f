// A picture at another size: Pillow's resampling of 8-bit channels, and OpenCV's INTER_LINEAR, both to the bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "spec.hpp"
#include "threads.hpp"

namespace hiresvit {

// Interleaved 8-bit channels.
struct View {
  const std::uint8_t* data;
  std::ptrdiff_t stride;
  Size size;
};

// Keeps its tables and buffers: a second picture of the same sizes allocates nothing. Not for two threads at once.
class Resizer {
 public:
  Resizer();
  ~Resizer();
  Resizer(Resizer&&) noexcept;
  Resizer& operator=(Resizer&&) noexcept;

  // `from`, of 1, 3 or 4 channels, at the size `to`, into rows `stride` bytes apart. The same size is copied.
  void resize(const View& from, int channels, Filter filter, Size to, std::uint8_t* out, std::ptrdiff_t stride,
              Threads& threads);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hiresvit
