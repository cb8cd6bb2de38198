// int8 products in plain C++, for the compiler's vectoriser.
#pragma once

#include "kernel.h"

namespace qwen_aio {
namespace {

using Input = std::int8_t;
constexpr int TOGETHER = 4;  // inputs whose weights are neighbours
constexpr int MOST_INT8_ROWS = 4;
constexpr int MOST_FLOAT_ROWS = 2;

inline int input_levels(int) { return LEVELS; }

// Whole numbers within the levels.
inline void store_inputs(Input* p, Floats x) {
  for (int lane = 0; lane < LANES; ++lane) p[lane] = static_cast<Input>(x.of[lane]);
}

// Exact products of ROWS rows with a panel.
template <int ROWS>
void multiply_panel(const Input* x, const Matrix& matrix, int panel, std::int32_t (&sums)[ROWS][PANEL]) {
  const int size = matrix.num_inputs;
  const std::int8_t* weights = matrix.int8s + static_cast<std::size_t>(panel) * PANEL * size;
  for (auto& row : sums)
    for (auto& total : row) total = 0;
  for (int i = 0; i < size; i += TOGETHER, weights += TOGETHER * PANEL)
    for (int row = 0; row < ROWS; ++row) {
      const Input* four = x + row * size + i;
      for (int column = 0; column < PANEL; ++column)
        for (int part = 0; part < TOGETHER; ++part)
          sums[row][column] += static_cast<std::int32_t>(four[part]) * weights[column * TOGETHER + part];
    }
}

}  // namespace
}  // namespace qwen_aio
