// int8 weights times int16 inputs in AVX2: exact in 32 bits, and twice as precise an input as a byte.
//
// Bytes times bytes would be as fast here (the instruction for them takes one side unsigned, and
// giving it the signs costs what it saves), with an input of 8 bits.
#pragma once

#include <immintrin.h>

#include "kernel.h"

namespace qwen_aio {
namespace {

using Input = std::int16_t;
constexpr int TOGETHER = 2;  // inputs whose weights are neighbours
constexpr int MOST_INT8_ROWS = 5;
constexpr int MOST_FLOAT_ROWS = 3;

// The levels of inputs whose products with `size` weights fit into 32 bits in any order.
inline int input_levels(int size) {
  const int most = INT32_MAX / (LEVELS * size);
  return most < INT16_MAX ? most : INT16_MAX;
}

// Whole numbers within the levels.
inline void store_inputs(Input* p, Floats x) {
  const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(x.low), _mm256_cvtps_epi32(x.high));
  // Packing works on halves of a vector.
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(words, 0b11011000));
}

// Products of ROWS rows with VECTORS * 8 columns of a panel, from vector `first` on.
template <int ROWS, int VECTORS>
__attribute__((noinline)) void multiply_columns(const Input* x, const Matrix& matrix, int panel, int first,
                                                std::int32_t (&sums)[ROWS][PANEL]) {
  const int size = matrix.num_inputs;
  const std::int8_t* weights = matrix.int8s + static_cast<std::size_t>(panel) * PANEL * size + first * 16;
  __m256i totals[ROWS][VECTORS];
#pragma GCC unroll 8
  for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 4
    for (int vector = 0; vector < VECTORS; ++vector) totals[row][vector] = _mm256_setzero_si256();
  for (int i = 0; i < size; i += TOGETHER, weights += TOGETHER * PANEL) {
#pragma GCC unroll 4
    for (int vector = 0; vector < VECTORS; ++vector) {
      const __m256i wide =
          _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(weights + vector * 16)));
#pragma GCC unroll 8
      for (int row = 0; row < ROWS; ++row) {
        std::int32_t two;
        __builtin_memcpy(&two, x + row * size + i, sizeof two);
        const __m256i products = _mm256_madd_epi16(wide, _mm256_set1_epi32(two));
        totals[row][vector] = _mm256_add_epi32(totals[row][vector], products);
      }
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 4
    for (int vector = 0; vector < VECTORS; ++vector)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums[row] + (first + vector) * 8), totals[row][vector]);
}

// Exact products of ROWS rows with a panel.
template <int ROWS>
void multiply_panel(const Input* x, const Matrix& matrix, int panel, std::int32_t (&sums)[ROWS][PANEL]) {
  if constexpr (ROWS <= 2) {
    multiply_columns<ROWS, 4>(x, matrix, panel, 0, sums);
  } else {
    multiply_columns<ROWS, 2>(x, matrix, panel, 0, sums);
    multiply_columns<ROWS, 2>(x, matrix, panel, 2, sums);
  }
}

}  // namespace
}  // namespace qwen_aio
