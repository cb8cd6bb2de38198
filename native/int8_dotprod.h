// int8 products in NEON with dot products (ARMv8.2), which add four products of signed bytes in 32 bits.
#pragma once

#include <arm_neon.h>

#include "kernel.h"

namespace qwen_aio {
namespace {

using Input = std::int8_t;
constexpr int TOGETHER = 4;  // inputs whose weights are neighbours
constexpr int MOST_INT8_ROWS = 6;
constexpr int MOST_FLOAT_ROWS = 2;

inline int input_levels(int) { return LEVELS; }

// Whole numbers within the levels.
inline void store_inputs(Input* p, Floats x) {
  const auto eight = [&](int i) {
    const int16x4_t low = vmovn_s32(vcvtq_s32_f32(x.of[i])), high = vmovn_s32(vcvtq_s32_f32(x.of[i + 1]));
    return vmovn_s16(vcombine_s16(low, high));
  };
  vst1q_s8(p, vcombine_s8(eight(0), eight(2)));
}

// Totals += products of ROWS rows with the 4 inputs of number PART in 16, of VECTORS * 4 columns.
template <int PART, int ROWS, int VECTORS>
inline void add_four(const std::int8_t* weights, const int8x16_t (&inputs)[ROWS], int32x4_t (&totals)[ROWS][VECTORS]) {
#pragma GCC unroll 8
  for (int vector = 0; vector < VECTORS; ++vector) {
    const int8x16_t four_columns = vld1q_s8(weights + PART * TOGETHER * PANEL + vector * 16);
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; ++row)
      totals[row][vector] = vdotq_laneq_s32(totals[row][vector], four_columns, inputs[row], PART);
  }
}

// Products of ROWS rows with VECTORS * 4 columns of a panel, from vector `first` on. The number of inputs is a
// multiple of 16; of 2^17, which no model has, the largest sums would still fit into 32 bits.
template <int ROWS, int VECTORS>
__attribute__((noinline)) void multiply_columns(const Input* x, const Matrix& matrix, int panel, int first,
                                                std::int32_t (&sums)[ROWS][PANEL]) {
  const int size = matrix.num_inputs;
  const std::int8_t* weights = matrix.int8s + static_cast<std::size_t>(panel) * PANEL * size + first * 16;
  int32x4_t totals[ROWS][VECTORS];
#pragma GCC unroll 8
  for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 8
    for (int vector = 0; vector < VECTORS; ++vector) totals[row][vector] = vdupq_n_s32(0);
  for (int i = 0; i < size; i += 16, weights += 16 * PANEL) {
    int8x16_t inputs[ROWS];
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; ++row) inputs[row] = vld1q_s8(x + row * size + i);
    add_four<0>(weights, inputs, totals);
    add_four<1>(weights, inputs, totals);
    add_four<2>(weights, inputs, totals);
    add_four<3>(weights, inputs, totals);
  }
#pragma GCC unroll 8
  for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 8
    for (int vector = 0; vector < VECTORS; ++vector) vst1q_s32(sums[row] + (first + vector) * 4, totals[row][vector]);
}

// Exact products of ROWS rows with a panel.
template <int ROWS>
void multiply_panel(const Input* x, const Matrix& matrix, int panel, std::int32_t (&sums)[ROWS][PANEL]) {
  if constexpr (ROWS <= 2) {
    multiply_columns<ROWS, 8>(x, matrix, panel, 0, sums);
  } else {
    multiply_columns<ROWS, 4>(x, matrix, panel, 0, sums);
    multiply_columns<ROWS, 4>(x, matrix, panel, 4, sums);
  }
}

}  // namespace
}  // namespace qwen_aio
