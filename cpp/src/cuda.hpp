// What we need of CUDA: memory, copies, streams, events, graphs. The driver's own interface, opened when the program
// runs, in the GPU's primary context, which is the one that TensorRT uses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace hiresvit {

struct Gpu {
  std::string name;
  std::string compute_capability;  // "8.7"
  bool integrated = false;         // shares the host's memory (Jetson)
};

using GpuAddress = std::uint64_t;

struct CudaCalls;  // the driver's functions

// Something of CUDA's, which is given back with this object; its Cuda must live longer.
template <class T>
class Owned {
 public:
  using Release = int (*)(T);
  Owned() = default;
  Owned(const class Cuda* cuda, T value, Release release) : cuda_(cuda), value_(value), release_(release) {}
  Owned(Owned&& other) noexcept { *this = std::move(other); }
  Owned& operator=(Owned&& other) noexcept {
    std::swap(cuda_, other.cuda_), std::swap(value_, other.value_), std::swap(release_, other.release_);
    return *this;
  }
  ~Owned() { reset(); }
  void reset() noexcept;
  T get() const { return value_; }
  explicit operator bool() const { return release_ != nullptr; }

 private:
  const Cuda* cuda_ = nullptr;
  T value_{};
  Release release_ = nullptr;
};

using Handle = Owned<void*>;
using GpuMemory = Owned<GpuAddress>;

// What CUDA refuses is an Error (failed) with the call's name and CUDA's own words. Copies, events and graph launches
// only join the stream's queue. Sizes are in bytes and at least 1.
class Cuda {
 public:
  // Throws Error: missing without a driver or a GPU, usage for a GPU that is not there.
  explicit Cuda(int device);
  ~Cuda();
  Cuda(const Cuda&) = delete;
  Cuda& operator=(const Cuda&) = delete;

  const Gpu& gpu() const { return gpu_; }

  // Makes the primary context this thread's as long as it lives. Everything below needs one.
  class Current {
   public:
    explicit Current(const Cuda& cuda);
    ~Current();
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;

   private:
    const Cuda& cuda_;
  };

  GpuMemory gpu_memory(std::size_t size) const;
  Handle host_memory(std::size_t size, bool mapped) const;  // pinned; the GPU sees it, too, if `mapped`
  GpuAddress address_of(void* mapped) const;                // where it sees it
  Handle stream() const;                                    // one that does not wait for the default stream
  Handle event() const;
  void copy_to_gpu(GpuAddress to, const void* from, std::size_t size, void* stream) const;
  void copy_to_host(void* to, GpuAddress from, std::size_t size, void* stream) const;
  void record(void* event, void* stream) const;
  void wait_event(void* event) const;
  double elapsed_ms(void* start, void* end) const;
  void wait_stream(void* stream) const;
  void drain(void* stream) const noexcept;  // as wait_stream, where something else is wrong already
  void begin_capture(void* stream) const;   // what this thread queues from here on is recorded instead of done
  Handle end_capture(void* stream) const;   // stops that, also when it throws; what was recorded, ready to launch
  void drop_capture(void* stream) const noexcept;
  void launch(void* graph, void* stream) const;

 private:
  template <class T>
  friend class Owned;
  bool push() const noexcept;
  void pop() const noexcept;

  const CudaCalls& calls_;
  int device_ = 0;
  void* context_ = nullptr;
  Gpu gpu_;
};

template <class T>
void Owned<T>::reset() noexcept {
  if (release_ == nullptr) return;
  const bool pushed = cuda_->push();
  release_(value_);
  if (pushed) cuda_->pop();
  release_ = nullptr;
}

}  // namespace hiresvit
