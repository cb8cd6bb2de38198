// int4 products in plain C++: the levels of a group are looked up, for the compiler's vectoriser.
// Included after simd_plain.h and int8_plain.h.
#pragma once

#include "int4_levels.h"
#include "kernel.h"

namespace qwen_aio {
namespace {

constexpr int MOST_INT4_ROWS = 4;
constexpr int GROUP_LEVELS = LEVELS;  // of inputs, on either side of zero

struct GroupInputs {
  Input inputs[GROUP];
};

// Whole numbers within the levels.
inline void store_group(GroupInputs* group, Floats first, Floats second) {
  store_inputs(group->inputs, first);
  store_inputs(group->inputs + LANES, second);
}

// The weights of a group in the layout of int8: [input / 4][32 columns][4 inputs].
inline void look_up(const std::uint8_t* int4s, std::int8_t (&levels)[GROUP / 4][PANEL * 4]) {
  for (int i = 0; i < GROUP / 4; i += 2, int4s += 4 * PANEL)
    for (int byte = 0; byte < 4 * PANEL; ++byte) {
      levels[i][byte] = INT4_LEVELS[int4s[byte] & 15];
      levels[i + 1][byte] = INT4_LEVELS[int4s[byte] >> 4];
    }
}

// The exact product of a group, times the factor of each column.
inline void add_group(const Input* inputs, const std::int8_t (&levels)[GROUP / 4][PANEL * 4],
                      const std::int8_t* factors, float* sums) {
  std::int32_t totals[PANEL] = {};
  for (int i = 0; i < GROUP / 4; ++i)
    for (int column = 0; column < PANEL; ++column)
      for (int part = 0; part < 4; ++part)
        totals[column] += static_cast<std::int32_t>(inputs[i * 4 + part]) * levels[i][column * 4 + part];
  for (int column = 0; column < PANEL; column += LANES)
    store(sums + column, multiply_add(load(totals + column), load(factors + column), load(sums + column)));
}

// Products of ROWS rows with a panel: exact in a group, then added in the order of the groups.
template <int ROWS>
void multiply_panel(const GroupInputs* x, const Matrix& matrix, int panel, float (&sums)[ROWS][PANEL]) {
  const int num_groups = matrix.num_groups();
  const std::size_t first_group = static_cast<std::size_t>(panel) * num_groups;
  const std::uint8_t* weights = matrix.int4s + first_group * (GROUP * PANEL / 2);
  const std::int8_t* factors = matrix.factors + first_group * PANEL;
  std::int8_t levels[GROUP / 4][PANEL * 4];
  for (auto& row : sums)
    for (auto& total : row) total = 0;
  for (int group = 0; group < num_groups; ++group, weights += GROUP * PANEL / 2, factors += PANEL) {
    look_up(weights, levels);
    for (int row = 0; row < ROWS; ++row) add_group(x[row * num_groups + group].inputs, levels, factors, sums[row]);
  }
}

}  // namespace
}  // namespace qwen_aio
