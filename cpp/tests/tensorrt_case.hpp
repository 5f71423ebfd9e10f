// What the tests of the backend for TensorRT share: a plan in a folder, an engine on the fakes, and how it is looked
// at.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend.hpp"
#include "fake_cuda.hpp"
#include "fake_tensorrt.hpp"

#define CHECK(condition)                                                   \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                        \
    }                                                                      \
  } while (false)

struct Refusal {
  int code = 0;
  std::string words;
};

// One of the two libraries with its module.
struct Library {
  bool rtx = false;
  fake_tensorrt::State& state() const;
  std::string path() const;
  std::string plan_bytes() const;  // as its builder would write it
};

// Both fakes anew, and a folder with a plan and its sidecar.
struct Case {
  explicit Case(bool rtx = false, bool integrated = false);
  ~Case();  // nothing may be left: no memory, no handle, no object of TensorRT
  Case(const Case&) = delete;
  Case& operator=(const Case&) = delete;

  void write_plan(const std::string& bytes);
  // The sidecar of the plan as it is now; the pairs replace a value in its report's text.
  void write_sidecar(const std::vector<std::pair<std::string, std::string>>& replaced = {});
  void remove_sidecar();

  std::unique_ptr<hiresvit::Backend> open();
  Refusal refused();  // of opening, which must fail

  Library library;
  fake_tensorrt::State& trt;
  fake_cuda::State& cuda;
  hiresvit::BackendOptions options;
  std::string plan;
};

Refusal refusal_of(const std::function<void()>& call);
bool says(const Refusal& refusal, int code, const std::string& part);

void fill(hiresvit::Backend& backend, int slot, float start);      // x = start, start + 1, ...
bool is_right(hiresvit::Backend& backend, int slot, float start);  // y = 2 x + 1
void frame(hiresvit::Backend& backend, int slot, float start);     // fills, submits, waits and checks

// Of operator new since the program's start, without what the fakes take.
long allocations();

extern std::string build_folder;

void test_refusals();
