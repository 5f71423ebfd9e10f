// The engine on a network that is none: order of frames, depth, buffers, threads, contracts.
#include <atomic>

#include "check.hpp"
#include "fake_network.hpp"

using namespace hiresvit;

namespace {

struct Frame {
  std::vector<std::uint8_t> rgb;
  int height, width;
  Frame(int height_, int width_, int red)
      : rgb(static_cast<std::size_t>(3 * height_ * width_), static_cast<std::uint8_t>(red)),
        height(height_),
        width(width_) {}
  Picture picture() const {
    Picture own;
    own.height = height, own.width = width;
    own.planes[0] = rgb.data(), own.strides[0] = 3 * width;
    return own;
  }
};

struct Map {
  std::vector<std::uint8_t> labels;
  Answer answer;
  Map(int height, int width) : labels(static_cast<std::size_t>(height * width), 77) {
    answer.size = {height, width};
    answer.labels.labels = labels.data(), answer.labels.stride = width;
  }
  bool all(int label) const {
    for (const int found : labels) {
      if (found != label) return false;
    }
    return true;
  }
};

std::unique_ptr<Engine> open(ContractName name, int sleep_ms = 0, FakeNetwork** network = nullptr) {
  auto fake = std::make_unique<FakeNetwork>(sleep_ms);
  if (network != nullptr) *network = fake.get();
  return std::make_unique<Engine>(fake_manifest(name), "cpu", std::move(fake), fake_options());
}

void frames_come_in_order() {
  const auto engine = open(ContractName::image, 1);
  CHECK(engine->pending() == 0 && engine->next_size() == Size{});
  for (int frame = 0; frame < 40; ++frame) {  // of other sizes each time, two under way
    engine->submit(Frame(5 + frame, 9, frame).picture());
    if (frame == 0) continue;
    CHECK(engine->pending() == 2 && (engine->next_size() == Size{4 + frame, 9}));
    Map map(4 + frame, 9);
    engine->wait(map.answer);
    CHECK(map.all(frame - 1));
  }
  Map last(44, 9);
  engine->wait(last.answer);
  CHECK(last.all(39) && engine->pending() == 0);
}

void calls_out_of_order_are_refused() {
  const auto engine = open(ContractName::image);
  const Frame frame(8, 8, 3);
  Map map(8, 8);
  CHECK(code_of<Error>([&] { engine->wait(map.answer); }) == kUsage);
  CHECK(engine->output(0) == nullptr);
  engine->submit(frame.picture());
  CHECK(code_of<Error>([&] { engine->run(frame.picture(), map.answer); }) == kUsage);
  engine->submit(frame.picture());
  CHECK(code_of<Error>([&] { engine->submit(frame.picture()); }) == kUsage);
  Map small(8, 7);
  CHECK(code_of<Error>([&] { engine->wait(small.answer); }) == kUsage && engine->pending() == 2);
  map.answer.labels.stride = 7;
  CHECK(code_of<Error>([&] { engine->wait(map.answer); }) == kUsage && engine->pending() == 2);
  map.answer.labels.stride = 8, map.answer.labels.confidence = map.labels.data();
  map.answer.labels.confidence_stride = 8;
  CHECK(code_of<Error>([&] { engine->wait(map.answer); }) == kUsage);  // the bundle gives none
  map.answer.labels.confidence = nullptr;
  engine->wait(map.answer);
  engine->wait(map.answer);
  CHECK(map.all(3) && engine->output(0) != nullptr);
}

void a_network_that_fails_takes_its_frame_along() {
  FakeNetwork* network = nullptr;
  const auto engine = open(ContractName::image, 0, &network);
  Map map(8, 8);
  engine->submit(Frame(8, 8, 1).picture());
  engine->submit(Frame(8, 8, 2).picture());
  network->fail_next = true;
  CHECK(code_of<Error>([&] { engine->wait(map.answer); }) == kFailed && engine->pending() == 1);
  engine->wait(map.answer);
  CHECK(map.all(2));
}

void a_camera_keeps_its_size() {
  const auto engine = open(ContractName::camera);
  Map map(8, 8);
  engine->run(Frame(8, 8, 5).picture(), map.answer);
  CHECK(map.all(5));
  CHECK(code_of<Error>([&] { engine->submit(Frame(9, 8, 5).picture()); }) == kUsage && engine->pending() == 0);
  const Frame frame(8, 8, 5);
  Picture narrow = frame.picture();
  narrow.strides[0] = 23;
  CHECK(code_of<Error>([&] { engine->submit(narrow); }) == kBadInput);
  std::vector<std::int32_t> wide(8 * 10, -1);  // wider labels, in longer rows
  Answer answer;
  answer.size = {8, 8};
  answer.labels = {LabelType::i32, wide.data(), 10, nullptr, 0};
  engine->run(Frame(8, 8, 6).picture(), answer);
  CHECK(wide[0] == 6 && wide[77] == 6 && wide[8] == -1 && wide[79] == -1);
}

void two_threads_are_served_or_told() {
  const auto engine = open(ContractName::image);
  std::atomic<int> served{0}, told{0};
  const auto use = [&](int red) {
    const Frame frame(8, 8, red);
    for (int round = 0; round < 300; ++round) {
      Map map(8, 8);
      try {
        engine->run(frame.picture(), map.answer);
        CHECK(map.all(red));
        ++served;
      } catch (const Error& error) {
        CHECK(error.code == kBusy);
        ++told;
      }
    }
  };
  std::thread first(use, 1), second(use, 2);
  first.join(), second.join();
  CHECK(served > 0 && served + told == 600);
}

void a_graph_is_held_to_its_contract() {
  const auto refused = [](const auto& change) {
    Manifest manifest = fake_manifest(ContractName::image);
    change(manifest);
    return code_of<Error>([&] { Engine(manifest, "cpu", std::make_unique<FakeNetwork>(), fake_options()); });
  };
  CHECK(refused([](Manifest&) {}) == 0);
  CHECK(refused([](Manifest& m) { m.inputs[0].name = "picture"; }) == kDamaged);
  CHECK(refused([](Manifest& m) { m.inputs[0].dtype = "float32"; }) == kDamaged);
  CHECK(refused([](Manifest& m) { m.outputs[0].shape[2] = 9; }) == kDamaged);
  CHECK(refused([](Manifest& m) { m.outputs.push_back(m.outputs[0]); }) == kDamaged);
  // The manifest agrees with the graph, and its spec or contract with neither: nothing may be written by those sizes.
  CHECK(refused([](Manifest& m) { m.contract.size = Size{64, 64}; }) == kDamaged);
  CHECK(refused([](Manifest& m) { m.contract.pixels = Pixels::rgba; }) == kDamaged);
  CHECK(refused([](Manifest& m) { m.contract.pixels = Pixels::nv12; }) == kDamaged);
  CHECK(refused([](Manifest& m) { m.contract.confidence = true; }) == kDamaged);
  CHECK(refused([](Manifest& m) { m.contract.name = ContractName::tensor; }) == kDamaged);
  CHECK(refused([](Manifest& m) { m.spec.preprocess.resize = Resize::crop; }) == kUsage);
}

}  // namespace

int main() {
  frames_come_in_order();
  calls_out_of_order_are_refused();
  a_network_that_fails_takes_its_frame_along();
  a_camera_keeps_its_size();
  two_threads_are_served_or_told();
  a_graph_is_held_to_its_contract();
  std::puts("ok");
}
