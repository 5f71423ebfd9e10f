#include "resize.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "error.hpp"
#include "kernels.hpp"
#include "taps.hpp"

namespace hiresvit {

namespace {

// What a table was made for.
struct Axis {
  Filter filter = Filter::bilinear;
  int source = 0;
  std::int64_t target = 0;
  int first = 0;
  int count = 0;
  bool operator==(const Axis& other) const {
    return filter == other.filter && source == other.source && target == other.target && first == other.first &&
           count == other.count;
  }
};

// What a band of rows needs: a source row with room at both ends, and the last rows that were resized across.
struct Band {
  std::vector<std::uint8_t> source;
  std::vector<std::uint8_t> ring;
  std::vector<int> held;  // which row lies in each place of the ring
  std::vector<const std::uint8_t*> rows;
  std::vector<std::uint8_t> out;
};

constexpr int kLeast = 16;  // rows of a band: its first rows are resized across a second time
constexpr std::int64_t kMostTarget = std::int64_t{1} << 30;

}  // namespace

struct Resizer::State {
  Axis across, down;
  Taps columns, rows;
  std::vector<Band> bands;

  struct Job {
    const RowSource* from;
    const RowSink* sink;
    bool opencv, down_first;
    int width, height, bands;
    std::size_t line;  // bytes of a row in the ring
  };

  void prepare(const Job& job, Filter filter, const Target& to);
  void run(const Job& job, int index);
  const std::uint8_t* row(const Job& job, Band& band, int y);
  void mix_rows(const Job& job, Band& band, int y, int bytes, std::uint8_t* out);
};

void Resizer::State::prepare(const Job& job, Filter filter, const Target& to) {
  const Axis x{filter, job.from->size.width, to.width, to.part.left, to.part.width};
  const Axis y{filter, job.from->size.height, to.height, to.part.top, to.part.height};
  if (!(x == across)) {
    across = Axis{};  // until the table is whole
    make_taps(filter, x.source, x.target, x.first, x.count, true, columns);
    across = x;
  }
  if (!(y == down)) {
    down = Axis{};
    make_taps(filter, y.source, y.target, y.first, y.count, false, rows);
    down = y;
  }
  const std::size_t places = static_cast<std::size_t>(rows.taps), count = static_cast<std::size_t>(job.bands);
  const auto pixels = static_cast<std::size_t>(x.source) + static_cast<std::size_t>(columns.taps) + 4 * kPad;
  if (bands.size() < count) bands.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    Band& band = bands[i];
    if (band.source.size() < whole_blocks(pixels * 4)) band.source.resize(whole_blocks(pixels * 4));
    if (band.ring.size() < places * job.line) band.ring.resize(places * job.line);
    if (band.out.size() < whole_blocks(static_cast<std::size_t>(x.count) * 4)) {
      band.out.resize(whole_blocks(static_cast<std::size_t>(x.count) * 4));
    }
    band.held.assign(places, -1);
    if (band.rows.size() < places) band.rows.resize(places);
  }
}

// Source row y, resized across unless that comes second; from the ring where it still is.
const std::uint8_t* Resizer::State::row(const Job& job, Band& band, int y) {
  const std::size_t place = static_cast<std::size_t>(y) % band.held.size();
  std::uint8_t* out = band.ring.data() + place * job.line;
  if (band.held[place] == y) return out;
  band.held[place] = y;
  if (job.down_first) {
    job.from->row(job.from->context, y, out);
    return out;
  }
  std::uint8_t* first = band.source.data() + 4 * kPad;
  std::uint8_t* last = first + static_cast<std::ptrdiff_t>(job.from->size.width - 1) * 4;
  job.from->row(job.from->context, y, first);
  if (job.opencv) {
    std::memcpy(first - 4, first, 4);
    std::memcpy(last + 4, last, 4);
    opencv_across(first, columns, job.width, reinterpret_cast<std::uint16_t*>(out));
  } else {
    pillow_across(first, columns, job.width, out);
  }
  return out;
}

// Rows of the ring mixed to row y of the part.
void Resizer::State::mix_rows(const Job& job, Band& band, int y, int bytes, std::uint8_t* out) {
  const int start = rows.starts[static_cast<std::size_t>(y)], height = job.from->size.height;
  const std::int32_t* weights = &rows.weights[static_cast<std::size_t>(y) * static_cast<std::size_t>(rows.taps)];
  if (job.opencv) {
    const std::uint8_t* above = row(job, band, std::clamp(start, 0, height - 1));
    const std::uint8_t* below = row(job, band, std::clamp(start + 1, 0, height - 1));
    opencv_down(reinterpret_cast<const std::uint16_t*>(above), reinterpret_cast<const std::uint16_t*>(below), weights,
                bytes, out);
    return;
  }
  const int taps = std::min(rows.taps, height - start);
  for (int t = 0; t < taps; ++t) band.rows[static_cast<std::size_t>(t)] = row(job, band, start + t);
  pillow_down(band.rows.data(), weights, taps, bytes, out);
}

void Resizer::State::run(const Job& job, int index) {
  Band& band = bands[static_cast<std::size_t>(index)];
  const auto edge = [&](int i) { return static_cast<int>(static_cast<std::int64_t>(job.height) * i / job.bands); };
  for (int y = edge(index); y < edge(index + 1); ++y) {
    if (job.down_first) {
      std::uint8_t* mixed = band.source.data() + 4 * kPad;
      mix_rows(job, band, y, job.from->size.width * 4, mixed);
      pillow_across(mixed, columns, job.width, band.out.data());
    } else {
      mix_rows(job, band, y, job.width * 4, band.out.data());
    }
    job.sink->row(job.sink->context, y, band.out.data());
  }
}

Resizer::Resizer() : state_(std::make_unique<State>()) {}
Resizer::~Resizer() = default;
Resizer::Resizer(Resizer&&) noexcept = default;
Resizer& Resizer::operator=(Resizer&&) noexcept = default;

void Resizer::resize_rows(const RowSource& from, Filter filter, const Target& to, const RowSink& sink,
                          Threads& threads) {
  const Region& part = to.part;
  if (to.height > kMostTarget || to.width > kMostTarget) {
    throw Error(kBadInput, "picture of " + std::to_string(from.size.height) + "x" + std::to_string(from.size.width) +
                               " would become " + std::to_string(to.height) + "x" + std::to_string(to.width) +
                               ": its sides differ too much; give another picture");
  }
  if (part.top < 0 || part.left < 0 || part.height < 1 || part.width < 1 || part.top + part.height > to.height ||
      part.left + part.width > to.width || from.size.height < 1 || from.size.width < 1) {
    throw Error(kBadInput, "a resize to " + std::to_string(to.height) + "x" + std::to_string(to.width) +
                               " has no such part; sizes must be positive");
  }
  const int bands = std::clamp(part.height / kLeast, 1, threads.count() == 1 ? 1 : threads.count() * 2);
  // Pillow since 13 begins with the height where that loses more than twice as many pixels as the width; rounding in
  // between makes it another picture.
  const bool opencv = filter == Filter::opencv;
  const std::int64_t lower = from.size.height - to.height, narrower = from.size.width - to.width;
  const bool down_first = !opencv && lower > std::max<std::int64_t>(2 * narrower, 0);
  const std::size_t across = static_cast<std::size_t>(down_first ? from.size.width : part.width) * (opencv ? 8 : 4);
  const State::Job job{&from, &sink, opencv, down_first, part.width, part.height, bands, whole_blocks(across)};
  state_->prepare(job, filter, to);
  threads.run(bands, [&](int band) { state_->run(job, band); });
}

namespace {

struct Copy {
  const View* from;
  int channels;
  std::uint8_t* out;
  std::ptrdiff_t stride;
  int width;
};

void read_row(const void* context, int y, std::uint8_t* out) {
  const Copy& copy = *static_cast<const Copy*>(context);
  const std::uint8_t* row = copy.from->data + y * copy.from->stride;
  const int width = copy.from->size.width, channels = copy.channels;
  for (int x = 0; x < width; ++x) {
    for (int c = 0; c < 4; ++c) out[4 * x + c] = c < channels ? row[channels * x + c] : std::uint8_t{0};
  }
}

void write_row(void* context, int y, const std::uint8_t* four) {
  const Copy& copy = *static_cast<const Copy*>(context);
  std::uint8_t* row = copy.out + y * copy.stride;
  for (int x = 0; x < copy.width; ++x) {
    for (int c = 0; c < copy.channels; ++c) row[copy.channels * x + c] = four[4 * x + c];
  }
}

}  // namespace

void Resizer::resize(const View& from, int channels, Filter filter, Size to, std::uint8_t* out, std::ptrdiff_t stride,
                     Threads& threads) {
  const auto side = [](int value) { return value >= 1 && value <= kMostSide; };
  if (!side(from.size.height) || !side(from.size.width) || !side(to.height) || !side(to.width)) {
    throw Error(kBadInput, "a resize from " + std::to_string(from.size.height) + "x" + std::to_string(from.size.width) +
                               " to " + std::to_string(to.height) + "x" + std::to_string(to.width) +
                               ": each side must be from 1 to " + std::to_string(kMostSide));
  }
  if (channels != 1 && channels != 3 && channels != 4) {
    throw Error(kBadInput, "a resize of " + std::to_string(channels) + " channels: there must be 1, 3 or 4");
  }
  const std::ptrdiff_t source = static_cast<std::ptrdiff_t>(from.size.width) * channels;
  const std::ptrdiff_t target = static_cast<std::ptrdiff_t>(to.width) * channels;
  if (!from.data || !out || from.stride < source || stride < target) {
    throw Error(kBadInput, "a resize of rows of " + std::to_string(source) + " and " + std::to_string(target) +
                               " bytes with strides " + std::to_string(from.stride) + " and " + std::to_string(stride) +
                               ": strides must be at least that, and no plane null");
  }
  if (from.size == to) {
    for (int y = 0; y < to.height; ++y) {
      std::memcpy(out + y * stride, from.data + y * from.stride, static_cast<std::size_t>(target));
    }
    return;
  }
  Copy copy{&from, channels, out, stride, to.width};
  const Target all{to.height, to.width, Region{0, 0, to.height, to.width}};
  resize_rows(RowSource{from.size, read_row, &copy}, filter, all, RowSink{write_row, &copy}, threads);
}

}  // namespace hiresvit
