// Products of rows with the 32 columns of a panel.
// Included after a simd_*.h, an int8_*.h and an int4_*.h, once for every kernel.
#pragma once

#include <type_traits>

#include "kernel.h"
#include "rows.h"

namespace qwen_aio {
namespace {

// The results of one row in one panel, after scales: what becomes of them.
inline void finish(Floats first, Floats second, const Matrix& matrix, int panel, Epilogue epilogue, float* y) {
  switch (epilogue) {
    case Epilogue::store:
      if (matrix.bias != nullptr) {
        first = first + load(matrix.bias + panel * PANEL);
        second = second + load(matrix.bias + panel * PANEL + STEP);
      }
      store(y + panel * PANEL, first);
      store(y + panel * PANEL + STEP, second);
      break;
    case Epilogue::add:
      y += panel * PANEL;
      store(y, load(y) + first);
      store(y + STEP, load(y + STEP) + second);
      break;
    case Epilogue::swiglu:
      store(y + panel * STEP, silu(first) * second);
      break;
  }
}

template <int ROWS>
void multiply_floats(const float* x, const Matrix& matrix, int panel, Epilogue epilogue, float* y, int stride) {
  const int size = matrix.num_inputs;
  const float* weights = matrix.floats + static_cast<std::size_t>(panel) * PANEL * size;
  Floats sums[ROWS][2];
#pragma GCC unroll 16
  for (int row = 0; row < ROWS; ++row) sums[row][0] = sums[row][1] = all(0.0F);
  for (int i = 0; i < size; ++i, weights += PANEL) {
    const Floats first = load(weights), second = load(weights + STEP);
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row) {
      const Floats input = all(x[row * size + i]);
      sums[row][0] = multiply_add(input, first, sums[row][0]);
      sums[row][1] = multiply_add(input, second, sums[row][1]);
    }
  }
#pragma GCC unroll 2  // or GCC keeps the sums of two rows of NEON in memory
  for (int row = 0; row < ROWS; ++row)
    finish(sums[row][0], sums[row][1], matrix, panel, epilogue, y + static_cast<std::size_t>(row) * stride);
}

// What products of quantised inputs differ in.
struct Int8 {
  using Inputs = Input;      // as multiply_panel() takes them
  using Sum = std::int32_t;  // as it gives them, without scales
  static constexpr int MOST_ROWS = MOST_INT8_ROWS;
  static int row_size(const Matrix& matrix) { return matrix.num_inputs; }  // of one pass
};

struct Int4 {
  using Inputs = GroupInputs;
  using Sum = float;
  static constexpr int MOST_ROWS = MOST_INT4_ROWS;
  static int row_size(const Matrix& matrix) { return matrix.num_groups(); }
};

template <class Format, int ROWS, int PASSES>
void multiply_quantised(const typename Format::Inputs* x, const float* scales, const Matrix& matrix, int panel,
                        Epilogue epilogue, float* y, int stride) {
  alignas(64) typename Format::Sum sums[ROWS][PANEL];
  multiply_panel<ROWS>(x, matrix, panel, sums);
  const Floats scale[] = {load(matrix.scales + panel * PANEL), load(matrix.scales + panel * PANEL + STEP)};
  for (int row = 0; row < ROWS / PASSES; ++row) {
    Floats result[2];
    for (int part = 0; part < 2; ++part) {
      Floats total = load(sums[row * PASSES] + part * STEP);
      if constexpr (PASSES == 2) total = multiply_add(load(sums[row * 2 + 1] + part * STEP), all(1.0F / FINE), total);
      result[part] = total * scale[part] * all(scales[row]);
    }
    finish(result[0], result[1], matrix, panel, epilogue, y + static_cast<std::size_t>(row) * stride);
  }
}

// block(first, height) over `num_rows` rows in blocks as equal as can be, of at most MOST rows, multiples of `unit`.
template <int MOST, class Block>
void in_blocks(int num_rows, int unit, Block block) {
  const int most = MOST / unit * unit;
  int num_blocks = (num_rows + most - 1) / most;
  for (int row = 0; num_blocks > 0; --num_blocks) {
    const int units = (num_rows - row) / unit;
    const int height = (units + num_blocks - 1) / num_blocks * unit;
    block(row, height);
    row += height;
  }
}

// tile(height as a constant), for a height of at most ROWS.
template <int ROWS, class Tile>
void with_height(int height, Tile tile) {
  if (height == ROWS) return tile(std::integral_constant<int, ROWS>());
  if constexpr (ROWS > 1) with_height<ROWS - 1>(height, tile);
}

void multiply_floats(const Operand& x, const Matrix& matrix, int panel, Epilogue epilogue, float* y, int stride) {
  const std::size_t size = matrix.num_inputs, row_stride = stride;
  in_blocks<MOST_FLOAT_ROWS>(x.num_rows, 1, [&](int row, int height) {
    with_height<MOST_FLOAT_ROWS>(height, [&](auto rows) {
      multiply_floats<rows>(x.floats + row * size, matrix, panel, epilogue, y + row * row_stride, stride);
    });
  });
}

template <class Format>
void multiply_quantised(const Operand& x, const Matrix& matrix, int panel, Epilogue epilogue, float* y, int stride) {
  const std::size_t size = Format::row_size(matrix), row_stride = stride;
  const int passes = matrix.num_passes;
  in_blocks<Format::MOST_ROWS>(x.num_rows * passes, passes, [&](int row, int height) {
    const auto* inputs = static_cast<const typename Format::Inputs*>(x.inputs) + row * size;
    const float* scales = x.scales + row / passes;
    float* first = y + row / passes * row_stride;
    with_height<Format::MOST_ROWS>(height, [&](auto rows) {
      if (passes == 1) multiply_quantised<Format, rows, 1>(inputs, scales, matrix, panel, epilogue, first, stride);
      if constexpr (sizeof(Input) == 1 && rows % 2 == 0)
        if (passes == 2) multiply_quantised<Format, rows, 2>(inputs, scales, matrix, panel, epilogue, first, stride);
    });
  });
}

void multiply(const Operand& x, const Matrix& matrix, int panel, Epilogue epilogue, float* y, int stride) {
  if (matrix.floats != nullptr) return multiply_floats(x, matrix, panel, epilogue, y, stride);
  if (matrix.int8s != nullptr) return multiply_quantised<Int8>(x, matrix, panel, epilogue, y, stride);
  multiply_quantised<Int4>(x, matrix, panel, epilogue, y, stride);
}

}  // namespace
}  // namespace qwen_aio
