// A CUDA made of host memory: libcuda.so.1 for tests without a GPU, as tests/fake_cuda.py is for Python.
//
// What the real one does not forgive ends the program here: use of memory after it was given back, giving it back
// twice, a copy that is larger than its memory or from memory that is not pinned, a call without a context, allocating
// while recording. Nothing that is queued happens before somebody waits, and new memory holds garbage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>

namespace fake_cuda {

constexpr double kCopyMs = 0.25;

struct State {
  std::string name = "Orin";
  int major = 8, minor = 7, devices = 1, init_error = 0;
  bool integrated = false;
  std::size_t most = std::size_t{1} << 30;  // bytes that can be had at once
  int fail_at = -1;               // that call, counted from 0, fails: all but those that give back or switch contexts
  std::set<std::string> failing;  // these do what they are asked to and say that it failed
  std::map<std::string, int> calls;
  int counted = 0;
};

State& state();
void reset();                       // another machine; nothing may be held
std::map<std::string, int> held();  // what was not given back, by kind, the context too
std::size_t bytes_held();
bool busy();  // whether anything is queued

void* make_stream();  // a caller's own
void drop_stream(void* stream);

// For what runs on it.
void queue(void* stream, std::function<double()> work);  // gives the milliseconds that it took
bool is_recording(void* stream);
void* at(void* address, std::size_t size);  // memory that the GPU sees

// What the fakes allocate in the middle of a frame is not what they stand beside.
int& inside();
struct Inside {
  Inside() { ++inside(); }
  ~Inside() { --inside(); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
};

[[noreturn]] void misuse(const std::string& what);

}  // namespace fake_cuda
