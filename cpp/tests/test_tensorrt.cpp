// The backend for TensorRT: frames, slots, graphs, what fails in the middle. On fakes; nothing here ran on a GPU.
#include <atomic>
#include <new>
#include <thread>

#include "tensorrt_case.hpp"

using namespace hiresvit;
using fake_cuda::kCopyMs;
using fake_tensorrt::kRunMs;
using nvinfer1::DataType;
using nvinfer1::TensorIOMode;

namespace {

void test_a_plan_runs_and_says_what_it_takes() {
  Case it;
  const auto backend = it.open();
  CHECK(backend->about() == "TensorRT 10.3.0.30, Orin");
  CHECK(backend->inputs().size() == 1 && backend->outputs().size() == 1);
  const TensorInfo& x = backend->inputs()[0];
  CHECK(x.name == "x" && x.type == Type::f32 && x.shape == (std::vector<std::int64_t>{2, 3}) && x.bytes == 24);
  CHECK(backend->outputs()[0].name == "y" && backend->outputs()[0].bytes == 24);
  for (int step = 0; step < 3; ++step) frame(*backend, 0, 10.0F * static_cast<float>(step));
  CHECK(it.trt.contexts == 1);  // the second slot costs nothing until it is used
  CHECK(!it.trt.host_code && it.trt.shapes_set == 0);
}

void test_two_frames_are_in_flight() {
  for (const bool graph : {false, true}) {
    Case it;
    it.options.cuda_graph = graph;
    const auto backend = it.open();
    for (int step = 0; step < 4; ++step) {
      const auto start = static_cast<float>(step);
      fill(*backend, 0, start), fill(*backend, 1, 100 + start);
      backend->submit(0), backend->submit(1);
      const bool records = graph && step == 0;                                 // which waits
      CHECK(records || (fake_cuda::busy() && !is_right(*backend, 0, start)));  // submit waits for nothing
      const int first = step % 2;
      backend->wait(first), backend->wait(1 - first);
      CHECK(is_right(*backend, 0, start) && is_right(*backend, 1, 100 + start));
    }
    CHECK(it.trt.contexts == 2 && it.cuda.calls["stream_create"] == 2);
  }
}

void test_a_jetson_copies_nothing() {
  Case it(false, true);
  const auto backend = it.open();
  frame(*backend, 0, 1), frame(*backend, 1, 2);
  auto held = fake_cuda::held();
  CHECK(held["mapped"] == 4 && held["device"] == 0 && held["pinned"] == 0);
  for (const char* call : {"malloc", "copy_to_gpu", "copy_to_host"}) CHECK(it.cuda.calls[call] == 0);
  GpuTimes times;
  CHECK(backend->times(0, times) && times.h2d == 0 && times.compute == kRunMs && times.d2h == 0);
}

void test_the_callers_stream_is_taken_and_left() {
  Case it;
  void* const stream = fake_cuda::make_stream();
  it.options.stream = stream;
  {
    const auto backend = it.open();
    it.cuda.calls.clear();
    frame(*backend, 0, 1), frame(*backend, 1, 2);
    fill(*backend, 0, 3), fill(*backend, 1, 4);
    backend->submit(0), backend->submit(1), backend->wait(0), backend->wait(1);
    CHECK(is_right(*backend, 0, 3) && is_right(*backend, 1, 4));
    CHECK(it.cuda.calls["stream_create"] == 0);
  }
  CHECK(it.cuda.calls["stream_destroy"] == 0);
  fake_cuda::drop_stream(stream);
}

void test_the_first_frame_runs_and_later_ones_replay() {
  Case it;
  it.options.cuda_graph = true;
  const auto backend = it.open();
  for (int step = 0; step < 4; ++step) frame(*backend, 0, static_cast<float>(step));
  CHECK(it.trt.enqueued == 2);  // once to run, once to be recorded
  CHECK(it.cuda.calls["capture_begin"] == 1 && it.cuda.calls["graph_launch"] == 3);
  CHECK(it.cuda.calls["graph_destroy"] == 1);
  for (int step = 0; step < 3; ++step) frame(*backend, 1, static_cast<float>(step));
  CHECK(it.trt.enqueued == 4 && it.cuda.calls["graph_launch"] == 5);
}

void test_a_graph_that_is_not_recorded_is_an_error() {
  for (const char* call : {"capture_begin", "capture_end", "graph_instantiate"}) {
    Case it;
    it.options.cuda_graph = true;
    const auto backend = it.open();
    it.cuda.failing = {call};
    for (int step = 0; step < 2; ++step) {  // never in silence without one
      fill(*backend, 0, 1);
      const Refusal refusal = refusal_of([&] { backend->submit(0); });
      CHECK(says(refusal, 5, "; open the plan without a CUDA graph"));
      CHECK(!fake_cuda::busy() && fake_cuda::held()["recordings"] == 0 && fake_cuda::held()["graphs"] == 0);
    }
    it.cuda.failing.clear();
    frame(*backend, 0, 2);
  }
  Case it;
  it.options.cuda_graph = true;
  const auto backend = it.open();
  it.trt.refuse = {"capture"};
  CHECK(says(refusal_of([&] { backend->submit(0); }), 5,
             "TensorRT failed on this input (Error Code 1: Cuda Runtime (out of luck)); open the plan without"));
  CHECK(fake_cuda::held()["recordings"] == 0);
  it.trt.refuse.clear();
  frame(*backend, 0, 2);
}

void test_rtx_records_by_itself() {
  for (const bool graph : {false, true}) {
    Case it(true);
    it.options.cuda_graph = graph;
    const auto backend = it.open();
    CHECK(backend->about() == "TensorRT-RTX 1.7.1.116, NVIDIA GeForce RTX 4090");
    frame(*backend, 0, 1), frame(*backend, 0, 2), frame(*backend, 1, 3);
    CHECK(it.trt.strategy == (graph ? 1 : 0) && it.cuda.calls["capture_begin"] == 0 && it.trt.alive["config"] == 0);
  }
  for (const char* call : {"createRuntimeConfig", "setCudaGraphStrategy"}) {
    Case it(true);
    it.options.cuda_graph = true;
    it.trt.refuse = {call};
    CHECK(says(it.refused(), 5, "no memory or means to run it (Error Code 1"));
  }
}

void test_times_are_the_last_frames() {
  Case it;
  const auto backend = it.open();
  GpuTimes times;
  CHECK(!backend->times(0, times) && !backend->times(1, times));
  fill(*backend, 0, 1);
  backend->submit(0);
  CHECK(!backend->times(0, times));
  backend->wait(0);
  CHECK(backend->times(0, times) && times.h2d == kCopyMs && times.compute == kRunMs && times.d2h == kCopyMs);
  it.trt.refuse = {"enqueueV3"};
  refusal_of([&] { backend->submit(0); });
  CHECK(!backend->times(0, times));  // not those of the frame before
}

void test_nothing_is_allocated_after_the_first_frame() {
  for (const bool graph : {false, true}) {
    Case it;
    it.options.cuda_graph = graph;
    const auto backend = it.open();
    frame(*backend, 0, 1), frame(*backend, 1, 2);
    const long before = allocations();
    const auto held = fake_cuda::bytes_held();
    GpuTimes times;
    for (int step = 0; step < 20; ++step) {
      const auto start = static_cast<float>(step);
      fill(*backend, 0, start), backend->submit(0), fill(*backend, 1, start), backend->submit(1);
      backend->wait(0), backend->wait(1), backend->times(0, times);
      CHECK(is_right(*backend, 0, start));
    }
    CHECK(allocations() == before && fake_cuda::bytes_held() == held);
    const std::unique_ptr<int> counted(new int(1));
    CHECK(allocations() == before + 1);
  }
}

// Whatever CUDA refuses, at whichever call of a life with two slots and two graphs: one line, and nothing is left.
void test_every_call_may_fail() {
  for (const bool integrated : {false, true}) {
    for (int at = 0;; ++at) {
      Case it(false, integrated);
      it.options.cuda_graph = true;
      it.cuda.fail_at = at;
      const Refusal refusal = refusal_of([&] {
        const auto backend = it.open();
        for (int step = 0; step < 2; ++step) {
          fill(*backend, 0, 1), fill(*backend, 1, 2);
          backend->submit(0), backend->submit(1), backend->wait(0), backend->wait(1);
          CHECK(is_right(*backend, 0, 1) && is_right(*backend, 1, 2));
        }
      });
      const int made = it.cuda.counted;
      it.cuda.fail_at = -1;
      if (refusal.code != 0) {
        CHECK(says(refusal, 5, "CUDA: cu"));
        continue;
      }
      CHECK(at == made && at > 40);  // it came through: there is no such call
      break;
    }
  }
}

void test_what_gives_back_may_fail() {
  for (const char* call :
       {"free", "host_free", "stream_destroy", "event_destroy", "executable_destroy", "graph_destroy"}) {
    Case it;
    it.options.cuda_graph = true;
    it.cuda.failing = {call};
    const auto backend = it.open();
    frame(*backend, 0, 1);
  }
}

void test_a_context_that_is_refused() {
  Case it;
  const auto backend = it.open();
  it.cuda.failing = {"context_push"};
  CHECK(says(refusal_of([&] { backend->submit(0); }), 5, "CUDA: cuCtxPushCurrent failed"));
  it.cuda.failing.clear();
  frame(*backend, 0, 1);
}

void test_an_engine_goes_with_frames_in_flight() {
  Case it;
  const auto backend = it.open();
  fill(*backend, 0, 1), fill(*backend, 1, 2);
  backend->submit(0), backend->submit(1);
}

void test_errors_in_the_middle_leave_nothing_queued() {
  Case it;
  const auto backend = it.open();
  frame(*backend, 1, 1);
  for (const char* call : {"copy_to_gpu", "copy_to_host", "event_record"}) {
    it.cuda.failing = {call};
    fill(*backend, 0, 1);
    CHECK(says(refusal_of([&] { backend->submit(0); }), 5, " failed (CUDA_ERROR_UNKNOWN: unknown error)"));
    CHECK(!fake_cuda::busy());
    it.cuda.failing.clear();
    frame(*backend, 0, 2);
  }
  it.trt.refuse = {"enqueueV3"};
  CHECK(says(refusal_of([&] { backend->submit(0); }), 5,
             "a.plan: TensorRT failed on this input (Error Code 1: Cuda Runtime (out of luck))"));
  CHECK(!fake_cuda::busy());
  it.trt.refuse.clear();
  fill(*backend, 0, 5);
  backend->submit(0);
  it.cuda.failing = {"event_synchronize"};
  CHECK(says(refusal_of([&] { backend->wait(0); }), 5, "cuEventSynchronize failed"));
  CHECK(!fake_cuda::busy());
  it.cuda.failing.clear();
  frame(*backend, 0, 3), frame(*backend, 1, 4);
}

void test_memory_runs_out() {
  Case it;
  it.cuda.most = 95;  // of 4 x 24
  CHECK(says(it.refused(), 5,
             "out of GPU memory: cuMemAlloc of 24 bytes failed (CUDA_ERROR_OUT_OF_MEMORY: out of"
             " memory); close what else uses the GPU"));
  it.cuda.most = 96;
  const auto backend = it.open();
  fill(*backend, 0, 1);
  backend->submit(0);
  CHECK(says(refusal_of([&] { backend->input(1, 0); }), 5, "out of GPU memory: cuMemHostAlloc of 24 bytes"));
  CHECK(it.trt.alive["context"] == 1 && fake_cuda::bytes_held() == 96);
  backend->wait(0);  // the frame in flight is not touched by it
  CHECK(is_right(*backend, 0, 1));
  it.cuda.most = 192;
  frame(*backend, 1, 2);
}

void test_slots_are_used_in_order() {
  Case it;
  const auto backend = it.open();
  CHECK(says(refusal_of([&] { backend->wait(0); }), 2, "slot 0 has no frame in flight; submit one first"));
  CHECK(says(refusal_of([&] { backend->submit(2); }), 2, "slot 2; there are 0 and 1"));
  CHECK(says(refusal_of([&] { backend->input(-1, 0); }), 2, "slot -1; there are 0 and 1"));
  fill(*backend, 0, 1);
  backend->submit(0);
  CHECK(says(refusal_of([&] { backend->submit(0); }), 2, "slot 0 has a frame in flight; wait for it first"));
  backend->wait(0);
  CHECK(is_right(*backend, 0, 1));
}

void test_two_engines_do_not_meet() {
  Case it;  // whose TensorRT insists on one log
  const auto first = it.open();
  {
    const auto second = it.open();
    fill(*first, 0, 1), fill(*second, 0, 2);
    first->submit(0), second->submit(0), first->wait(0), second->wait(0);
    CHECK(is_right(*first, 0, 1) && is_right(*second, 0, 2));
  }
  frame(*first, 0, 3);
}

void test_another_thread_may_go_on() {
  Case it;
  auto backend = it.open();
  std::thread other([&] {
    frame(*backend, 0, 1), frame(*backend, 1, 2);
    backend.reset();
  });
  other.join();
}

void test_types() {
  const std::vector<std::pair<DataType, Type>> known = {{DataType::kFLOAT, Type::f32},
                                                        {DataType::kHALF, Type::f16},
                                                        {DataType::kUINT8, Type::u8},
                                                        {DataType::kINT32, Type::i32},
                                                        {DataType::kINT64, Type::i64}};
  const std::vector<std::size_t> sizes = {4, 2, 1, 4, 8};
  for (std::size_t i = 0; i < known.size(); ++i) {
    Case it;
    it.trt.tensors = {{"image", TensorIOMode::kINPUT, {1, 4, 6, 3}, known[i].first},
                      {"labels", TensorIOMode::kOUTPUT, {1, 4, 6}, known[i].first},
                      {"none", TensorIOMode::kOUTPUT, {0, 6}, known[i].first}};
    std::size_t seen = 0;
    it.trt.compute = [&](const fake_tensorrt::Memory& memory) { seen = memory.at("image").second; };
    const auto backend = it.open();
    CHECK(backend->inputs()[0].type == known[i].second && backend->inputs()[0].bytes == 72 * sizes[i]);
    CHECK(backend->outputs()[0].bytes == 24 * sizes[i] && backend->outputs()[1].bytes == 0);
    backend->submit(0), backend->wait(0);
    CHECK(seen == 72);
  }
}

void test_an_open_batch_is_one_frame() {
  Case it;
  it.trt.tensors = {{"x", TensorIOMode::kINPUT, {-1, 3}}, {"y", TensorIOMode::kOUTPUT, {-1, 3}}};
  it.trt.tensors[0].least = {1, 3}, it.trt.tensors[0].best = {4, 3}, it.trt.tensors[0].most = {8, 3};
  {
    const auto backend = it.open();
    CHECK(backend->inputs()[0].shape == (std::vector<std::int64_t>{1, 3}) && backend->outputs()[0].bytes == 12);
    frame(*backend, 0, 1), frame(*backend, 1, 2);
  }
  it.trt.tensors = {{"x", TensorIOMode::kINPUT, {2, -1}}, {"y", TensorIOMode::kOUTPUT, {2, -1}}};
  it.trt.tensors[0].least = {2, 1}, it.trt.tensors[0].best = {2, 5}, it.trt.tensors[0].most = {2, 8};
  {
    const auto backend = it.open();
    CHECK(backend->inputs()[0].shape == (std::vector<std::int64_t>{2, 5}));
    frame(*backend, 0, 1);
  }
  it.trt.tensors = {{"x", TensorIOMode::kINPUT, {-1, 3}}, {"y", TensorIOMode::kOUTPUT, {-1, 3}}};
  it.trt.tensors[0].least = {2, 3}, it.trt.tensors[0].best = {4, 3}, it.trt.tensors[0].most = {8, 3};
  CHECK(says(it.refused(), 2,
             "input 'x' takes (2, 3) to (8, 3), and a frame is a batch of 1: build the plan with other"));
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc == 2);
  build_folder = argv[1];
  test_a_plan_runs_and_says_what_it_takes();
  test_two_frames_are_in_flight();
  test_a_jetson_copies_nothing();
  test_the_callers_stream_is_taken_and_left();
  test_the_first_frame_runs_and_later_ones_replay();
  test_a_graph_that_is_not_recorded_is_an_error();
  test_rtx_records_by_itself();
  test_times_are_the_last_frames();
  test_nothing_is_allocated_after_the_first_frame();
  test_every_call_may_fail();
  test_what_gives_back_may_fail();
  test_a_context_that_is_refused();
  test_an_engine_goes_with_frames_in_flight();
  test_errors_in_the_middle_leave_nothing_queued();
  test_memory_runs_out();
  test_slots_are_used_in_order();
  test_two_engines_do_not_meet();
  test_another_thread_may_go_on();
  test_types();
  test_an_open_batch_is_one_frame();
  test_refusals();
  return 0;
}
