// Labels of some rows of a picture, from logits that are resized bilinearly: what one thread does.
#pragma once

#include <cstdint>
#include <vector>

#include "logit_rows.hpp"
#include "postprocess.hpp"

namespace hiresvit {

// For each target index two source indices and the second's weight, as hiresvit/runtime/labels.py's _taps.
struct Lerp {
  std::vector<std::int32_t> first, second;
  std::vector<float> weight;
  void make(int source, int target, int start, int region, int whole);
};

// Where pixels lie among the points of a map of logits.
struct Grid {
  Lerp down, across;
  std::vector<int> begins;  // of each point, the first pixel that lies between it and the next; then their number
  void make(const Logits& logits, Size picture, const Region& region, Size whole);
};

class LabelBand {
 public:
  void prepare(const Logits& logits, const Grid& grid, bool confidence);

  // Rows from `begin` to `end`. False if one of the logits is not finite.
  bool run(const Logits& logits, const Grid& grid, int begin, int end, const LabelsOut& out);

 private:
  struct Cell {
    int point;              // its left one
    int candidates, count;  // where they begin among all, and how many there are
  };
  template <class Label>
  void cells_row(const Grid& grid, int y, Label* labels);
  template <class Label>
  void open_cells(const Grid& grid, int y, Label* labels);
  void find_cells(const Grid& grid, int upper, int lower);
  void add_cell(int upper, int lower, int point, float tolerance);
  template <class Label>
  void dense_row(const Grid& grid, int y, Label* labels, std::uint8_t* confidence);
  const float* wide(const Grid& grid, int row, int cls);
  template <class Label>
  bool rows(const Logits& logits, const Grid& grid, int begin, int end, const LabelsOut& out);

  LogitRows rows_;
  int classes_ = 0, points_ = 0;
  bool dense_ = false, may_be_dense_ = false;
  std::vector<std::int32_t> codes_;  // of each cell: the class of all of it, or -1
  std::vector<Cell> open_;
  std::vector<std::int32_t> candidates_;
  std::vector<float> wide_[2];  // for dense rows: rows of logits at the picture's width
  int wide_row_[2] = {-1, -1};
  std::vector<float> best_, sum_, powers_;
  std::vector<std::int32_t> index_;
};

}  // namespace hiresvit
