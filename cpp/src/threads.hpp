// Threads that are made once and share out the parts of a piece of work.
#pragma once

#include <memory>

namespace hiresvit {

class Threads {
 public:
  // Of `count` threads the caller's is one; 0 is as many as this process may use.
  explicit Threads(int count = 0);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  int count() const;

  // Calls work(part) for every part from 0 to parts - 1, in no order, and returns when all are done. No allocation. The
  // work must not throw. Two callers at once take turns.
  template <class Work>
  void run(int parts, const Work& work) {
    run_parts(
        parts, [](const void* context, int part) { (*static_cast<const Work*>(context))(part); }, &work);
  }

 private:
  void run_parts(int parts, void (*call)(const void*, int), const void* context);
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

}  // namespace hiresvit
