#include "label_band.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "clones.hpp"

namespace hiresvit {

namespace {

// How far a computed mix of four logits may be from the exact one, as a share of the greatest magnitude: three
// roundings of 2^-24 for each of two mixes, of differences twice as great; twice that for two classes, and room.
constexpr float kTolerance = 4e-6f;

HIRESVIT_CLONES void make_codes(const RowFacts& upper, const RowFacts& lower, int points, float tolerance,
                                std::int32_t* __restrict codes) {
  const std::int32_t *a = upper.index.data(), *b = lower.index.data();
  const float *c = upper.margin.data(), *d = lower.margin.data();
  for (int x = 0; x < points; ++x) {
    const float margin = c[x] < d[x] ? c[x] : d[x];
    codes[x] = (a[x] == b[x]) & (margin > tolerance) ? a[x] : -1;
  }
  for (int x = 0; x + 1 < points; ++x) codes[x] = codes[x] == codes[x + 1] ? codes[x] : -1;
}

HIRESVIT_CLONES void mix_rows(const float* __restrict upper, const float* __restrict lower, float weight, int width,
                              int cls, float* __restrict best, std::int32_t* __restrict index) {
  for (int x = 0; x < width; ++x) {
    const float value = upper[x] + (lower[x] - upper[x]) * weight;
    const bool ahead = value > best[x];
    index[x] = ahead ? cls : index[x];
    best[x] = ahead ? value : best[x];
  }
}

// e to the power of each number from -87 to 0, added up. What is nearest to a whole power of 2 is shifted into the bits
// of a float, the rest is a Taylor series to the seventh power of at most ln 2 / 2: off by less than a rounding.
HIRESVIT_CLONES void add_powers(const float* __restrict powers, int count, float* __restrict sum) {
  constexpr float magic = 12582912.0f;  // 1.5 * 2^23: the sum with it ends in the whole number that is nearest
  constexpr std::int32_t magic_bits = 0x4b400000;
  for (int x = 0; x < count; ++x) {
    const float power = powers[x], shifted = power * 1.44269504f + magic, whole = shifted - magic;
    const float rest = (power - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float value = 1.0f / 5040;
    value = value * rest + 1.0f / 720;
    value = value * rest + 1.0f / 120;
    value = value * rest + 1.0f / 24;
    value = value * rest + 1.0f / 6;
    value = value * rest + 0.5f;
    value = value * rest + 1.0f;
    value = value * rest + 1.0f;
    std::int32_t bits;
    std::memcpy(&bits, &shifted, 4);
    bits = static_cast<std::int32_t>(static_cast<std::uint32_t>(bits - magic_bits + 127) << 23);
    float scale;
    std::memcpy(&scale, &bits, 4);
    sum[x] += value * scale;
  }
}

// How far each mix is below the best.
HIRESVIT_CLONES void mix_below(const float* __restrict upper, const float* __restrict lower, float weight, int width,
                               const float* __restrict best, float* __restrict powers) {
  for (int x = 0; x < width; ++x) {
    const float power = upper[x] + (lower[x] - upper[x]) * weight - best[x];
    powers[x] = power > -87.0f ? power : -87.0f;
  }
}

template <class Label>
Label* row_of(void* labels, std::ptrdiff_t stride, int y) {
  return static_cast<Label*>(labels) + y * stride;
}

}  // namespace

void Lerp::make(int source, int target, int start, int region, int whole) {
  const double each = static_cast<double>(source) / whole;
  const double first_centre = (start + 0.5) * each - 0.5, last_centre = (start + region - 1 + 0.5) * each - 0.5;
  const double least = start ? std::max(first_centre, 0.0) : 0.0;
  const double most = start + region == whole ? source - 1 : std::max(last_centre, 0.0);
  first.resize(static_cast<std::size_t>(target));
  second.resize(static_cast<std::size_t>(target));
  weight.resize(static_cast<std::size_t>(target));
  for (int i = 0; i < target; ++i) {
    double centre = start * each + (i + 0.5) * region * each / target - 0.5;
    centre = std::min(std::max(centre, least), most);
    const auto at = static_cast<std::size_t>(i);
    first[at] = static_cast<std::int32_t>(centre);
    second[at] = std::min(first[at] + 1, source - 1);
    weight[at] = static_cast<float>(centre - first[at]);
  }
}

void Grid::make(const Logits& logits, Size picture, const Region& region, Size whole) {
  down.make(logits.height, picture.height, region.top, region.height, whole.height);
  across.make(logits.width, picture.width, region.left, region.width, whole.width);
  begins.assign(static_cast<std::size_t>(logits.width) + 1, picture.width);
  for (int x = picture.width - 1; x >= 0; --x)
    begins[static_cast<std::size_t>(across.first[static_cast<std::size_t>(x)])] = x;
  for (int point = logits.width - 1; point >= 0; --point) {  // between some points there is no pixel
    auto& begin = begins[static_cast<std::size_t>(point)];
    begin = std::min(begin, begins[static_cast<std::size_t>(point) + 1]);
  }
}

void LabelBand::prepare(const Logits& logits, const Grid& grid, bool confidence) {
  rows_.prepare(logits.classes, logits.width);
  classes_ = logits.classes;
  points_ = logits.width;
  const auto points = static_cast<std::size_t>(points_), classes = static_cast<std::size_t>(classes_);
  if (codes_.size() < points) codes_.resize(points);
  if (open_.capacity() < points) open_.reserve(points);
  if (candidates_.size() < points * classes) candidates_.resize(points * classes);
  wide_row_[0] = wide_row_[1] = -1;
  dense_ = confidence;
  may_be_dense_ = confidence || classes_ <= 256;
  if (!may_be_dense_) return;
  const std::size_t pixels = grid.across.first.size();
  for (auto& rows : wide_) {
    if (rows.size() < classes * pixels) rows.resize(classes * pixels);
  }
  if (best_.size() < pixels) {
    best_.resize(pixels);
    sum_.resize(pixels);
    powers_.resize(pixels);
    index_.resize(pixels);
  }
}

bool LabelBand::run(const Logits& logits, const Grid& grid, int begin, int end, const LabelsOut& out) {
  switch (out.type) {
    case LabelType::u8: return rows<std::uint8_t>(logits, grid, begin, end, out);
    case LabelType::i32: return rows<std::int32_t>(logits, grid, begin, end, out);
    case LabelType::i64: break;
  }
  return rows<std::int64_t>(logits, grid, begin, end, out);
}

template <class Label>
bool LabelBand::rows(const Logits& logits, const Grid& grid, int begin, int end, const LabelsOut& out) {
  const int width = static_cast<int>(grid.across.first.size());
  int upper = -1, lower = -1;
  for (int y = begin; y < end; ++y) {
    const int above = grid.down.first[static_cast<std::size_t>(y)],
              below = grid.down.second[static_cast<std::size_t>(y)];
    auto* labels = row_of<Label>(out.labels, out.stride, y);
    const bool moved = above != upper || below != lower;
    if (moved) {
      rows_.hold(logits, above, below);
      if (!rows_.facts(above).finite || !rows_.facts(below).finite) return false;
      upper = above, lower = below;
    }
    if (moved && !out.confidence) find_cells(grid, upper, lower);
    if (dense_) {
      dense_row(grid, y, labels, out.confidence ? out.confidence + y * out.confidence_stride : nullptr);
      continue;
    }
    if (moved) {
      cells_row(grid, y, labels);
    } else {
      std::copy_n(row_of<Label>(out.labels, out.stride, y - 1), width, labels);
    }
    open_cells(grid, y, labels);
  }
  return true;
}

// Which class each cell between two rows of points is of, and of those that are of several what may be best in them.
void LabelBand::find_cells(const Grid& grid, int upper, int lower) {
  const float most = std::max(rows_.facts(upper).most, rows_.facts(lower).most);
  const float tolerance = most * kTolerance;
  make_codes(rows_.facts(upper), rows_.facts(lower), points_, tolerance, codes_.data());
  open_.clear();
  const auto open = std::count(codes_.begin(), codes_.begin() + points_, -1);
  dense_ = may_be_dense_ && open * 4 > points_;  // of a network that nobody trained
  if (dense_) return;
  for (int point = 0; point < points_; ++point) {
    if (codes_[static_cast<std::size_t>(point)] >= 0) continue;
    if (grid.begins[static_cast<std::size_t>(point)] == grid.begins[static_cast<std::size_t>(point) + 1]) continue;
    add_cell(upper, lower, point, tolerance);
  }
}

// In a cell a mix of its corners is never below the least of them nor above the greatest. A class that is below another
// one's least, or below it at each corner, is nowhere the best.
void LabelBand::add_cell(int upper, int lower, int point, float tolerance) {
  const int next = std::min(point + 1, points_ - 1);
  const std::size_t stride = rows_.stride();
  const float *above = rows_.values(upper, 0), *below = rows_.values(lower, 0);
  const auto corner = [&](int cls, int i) {
    return (i < 2 ? above
                  : below)[static_cast<std::size_t>(cls) * stride + static_cast<std::size_t>(i & 1 ? next : point)];
  };
  const std::int32_t winners[4] = {rows_.facts(upper).index[static_cast<std::size_t>(point)],
                                   rows_.facts(upper).index[static_cast<std::size_t>(next)],
                                   rows_.facts(lower).index[static_cast<std::size_t>(point)],
                                   rows_.facts(lower).index[static_cast<std::size_t>(next)]};
  float floor = -std::numeric_limits<float>::infinity();
  for (const int winner : winners) {
    floor = std::max(floor, std::min(std::min(corner(winner, 0), corner(winner, 1)),
                                     std::min(corner(winner, 2), corner(winner, 3))));
  }
  floor -= tolerance;
  const int begin = open_.empty() ? 0 : open_.back().candidates + open_.back().count;
  int count = 0;
  for (int cls = 0; cls < classes_; ++cls) {
    const float values[4] = {corner(cls, 0), corner(cls, 1), corner(cls, 2), corner(cls, 3)};
    if (std::max(std::max(values[0], values[1]), std::max(values[2], values[3])) < floor) continue;
    bool dominated = false;
    for (const int winner : winners) {
      dominated =
          dominated || (corner(winner, 0) - values[0] > tolerance && corner(winner, 1) - values[1] > tolerance &&
                        corner(winner, 2) - values[2] > tolerance && corner(winner, 3) - values[3] > tolerance);
    }
    if (!dominated) candidates_[static_cast<std::size_t>(begin + count++)] = cls;
  }
  open_.push_back(Cell{point, begin, count});
}

// A row of labels, cells of one class only; neighbours of the same class at once.
template <class Label>
void LabelBand::cells_row(const Grid& grid, int, Label* labels) {
  for (int point = 0; point < points_;) {
    const std::int32_t code = codes_[static_cast<std::size_t>(point)];
    int end = point + 1;
    while (end < points_ && codes_[static_cast<std::size_t>(end)] == code) ++end;
    if (code >= 0) {
      std::fill(labels + grid.begins[static_cast<std::size_t>(point)],
                labels + grid.begins[static_cast<std::size_t>(end)], static_cast<Label>(code));
    }
    point = end;
  }
}

// The pixels of all other cells: a mix along each row of points, then between the two, as Python has it.
template <class Label>
void LabelBand::open_cells(const Grid& grid, int y, Label* labels) {
  const int upper = grid.down.first[static_cast<std::size_t>(y)], lower = grid.down.second[static_cast<std::size_t>(y)];
  const float down = grid.down.weight[static_cast<std::size_t>(y)];
  const float *above = rows_.values(upper, 0), *below = rows_.values(lower, 0);
  const std::size_t stride = rows_.stride();
  for (const Cell& cell : open_) {
    const auto left = static_cast<std::size_t>(cell.point);
    const auto right = static_cast<std::size_t>(std::min(cell.point + 1, points_ - 1));
    const std::int32_t* candidates = candidates_.data() + cell.candidates;
    for (int x = grid.begins[left]; x < grid.begins[left + 1]; ++x) {
      const float across = grid.across.weight[static_cast<std::size_t>(x)];
      float best = -std::numeric_limits<float>::infinity();
      std::int32_t found = 0;
      for (int i = 0; i < cell.count; ++i) {
        const std::size_t plane = static_cast<std::size_t>(candidates[i]) * stride;
        const float *a = above + plane, *b = below + plane;
        const float top = a[left] + (a[right] - a[left]) * across;
        const float bottom = b[left] + (b[right] - b[left]) * across;
        const float value = top + (bottom - top) * down;
        found = value > best ? candidates[i] : found;
        best = value > best ? value : best;
      }
      labels[x] = static_cast<Label>(found);
    }
  }
}

// A class of a row of logits at the picture's width.
const float* LabelBand::wide(const Grid& grid, int row, int cls) {
  return wide_[row & 1].data() + static_cast<std::size_t>(cls) * grid.across.first.size();
}

// Every class at every pixel: for confidence each counts, and where most cells are open it takes less time.
template <class Label>
void LabelBand::dense_row(const Grid& grid, int y, Label* labels, std::uint8_t* confidence) {
  const int upper = grid.down.first[static_cast<std::size_t>(y)], lower = grid.down.second[static_cast<std::size_t>(y)];
  const float down = grid.down.weight[static_cast<std::size_t>(y)];
  const std::size_t pixels = grid.across.first.size();
  const int width = static_cast<int>(pixels);
  for (const int row : {upper, lower}) {
    if (wide_row_[row & 1] == row) continue;
    wide_row_[row & 1] = row;
    for (int cls = 0; cls < classes_; ++cls) {
      const float* values = rows_.values(row, cls);
      float* out = wide_[row & 1].data() + static_cast<std::size_t>(cls) * pixels;
      for (std::size_t x = 0; x < pixels; ++x) {
        const float left = values[grid.across.first[x]], right = values[grid.across.second[x]];
        out[x] = left + (right - left) * grid.across.weight[x];
      }
    }
  }
  std::fill_n(best_.begin(), pixels, -std::numeric_limits<float>::infinity());
  std::fill_n(sum_.begin(), pixels, 0.0f);
  std::fill_n(index_.begin(), pixels, 0);
  for (int cls = 0; cls < classes_; ++cls) {
    mix_rows(wide(grid, upper, cls), wide(grid, lower, cls), down, width, cls, best_.data(), index_.data());
  }
  for (std::size_t x = 0; x < pixels; ++x) labels[x] = static_cast<Label>(index_[x]);
  if (!confidence) return;
  for (int cls = 0; cls < classes_; ++cls) {
    mix_below(wide(grid, upper, cls), wide(grid, lower, cls), down, width, best_.data(), powers_.data());
    add_powers(powers_.data(), width, sum_.data());
  }
  for (std::size_t x = 0; x < pixels; ++x) {
    confidence[x] = static_cast<std::uint8_t>(std::floor(255.0f / sum_[x] + 0.5f));
  }
}

}  // namespace hiresvit
