// What a thread does inside a runtime is not ours: the test that counts our allocations leaves it out.
#pragma once

namespace hiresvit {

inline thread_local bool inside_runtime = false;

struct Marked {
  Marked() { inside_runtime = true; }
  ~Marked() { inside_runtime = false; }
  Marked(const Marked&) = delete;
  Marked& operator=(const Marked&) = delete;
};

}  // namespace hiresvit
