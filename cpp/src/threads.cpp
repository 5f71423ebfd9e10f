#include "threads.hpp"

#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace hiresvit {

namespace {

int usable_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::thread::hardware_concurrency());
}

constexpr int kMostThreads = 256;

}  // namespace

struct Threads::Shared {
  std::mutex turn;  // of callers
  std::mutex mutex;
  std::condition_variable begin;
  std::condition_variable end;
  std::vector<std::thread> workers;
  void (*call)(const void*, int) = nullptr;
  const void* context = nullptr;
  int parts = 0;
  std::atomic<int> next{0};
  int working = 0;
  unsigned round = 0;
  bool stop = false;

  void take_parts() {
    for (int part = next.fetch_add(1); part < parts; part = next.fetch_add(1)) call(context, part);
  }

  void work() {
    unsigned seen = 0;
    std::unique_lock<std::mutex> lock(mutex);
    while (true) {
      begin.wait(lock, [&] { return stop || round != seen; });
      if (stop) return;
      seen = round;
      lock.unlock();
      take_parts();
      lock.lock();
      if (--working == 0) end.notify_one();
    }
  }

  void stop_all() {
    {
      std::lock_guard<std::mutex> lock(mutex);
      stop = true;
    }
    begin.notify_all();
    for (std::thread& worker : workers) worker.join();
  }
};

Threads::Threads(int count) : shared_(std::make_unique<Shared>()) {
  int wanted = count > 0 ? count : usable_cores();
  wanted = wanted < 1 ? 1 : wanted > kMostThreads ? kMostThreads : wanted;
  try {
    for (int i = 1; i < wanted; ++i) shared_->workers.emplace_back([shared = shared_.get()] { shared->work(); });
  } catch (...) {
    shared_->stop_all();
    throw;
  }
}

Threads::~Threads() { shared_->stop_all(); }

int Threads::count() const { return static_cast<int>(shared_->workers.size()) + 1; }

void Threads::run_parts(int parts, void (*call)(const void*, int), const void* context) {
  Shared& shared = *shared_;
  std::lock_guard<std::mutex> turn(shared.turn);
  if (shared.workers.empty() || parts < 2) {
    for (int part = 0; part < parts; ++part) call(context, part);
    return;
  }
  {
    std::lock_guard<std::mutex> lock(shared.mutex);
    shared.call = call;
    shared.context = context;
    shared.parts = parts;
    shared.next = 0;
    shared.working = static_cast<int>(shared.workers.size());
    ++shared.round;
  }
  shared.begin.notify_all();
  shared.take_parts();
  std::unique_lock<std::mutex> lock(shared.mutex);
  shared.end.wait(lock, [&] { return shared.working == 0; });
}

}  // namespace hiresvit
