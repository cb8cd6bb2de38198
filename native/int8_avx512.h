// int8 products in AVX-512 VNNI, which adds four products of unsigned and signed bytes in 32 bits.
#pragma once

#include <immintrin.h>

#include "kernel.h"

namespace qwen_aio {
namespace {

using Input = std::uint8_t;  // x + 128: the instruction takes this side without a sign
constexpr int TOGETHER = 4;  // inputs whose weights are neighbours
constexpr int MOST_INT8_ROWS = 14;
constexpr int MOST_FLOAT_ROWS = 12;

inline int input_levels(int) { return LEVELS; }

// Whole numbers within the levels.
inline void store_inputs(Input* p, Floats x) {
  const __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x.all));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_xor_si128(bytes, _mm_set1_epi8(-128)));
}

// As an instruction: given the intrinsic, GCC 12 moves sums between registers and memory.
inline void add_products(__m512i& total, __m512i x, __m512i weights) {
#ifdef __AVX512VNNI__
  asm("vpdpbusd %2, %1, %0" : "+v"(total) : "v"(x), "v"(weights));
#else  // emulated in tests
  total = _mm512_dpbusd_epi32(total, x, weights);
#endif
}

// Exact products of ROWS rows with a panel. Sums begin at -128 sum(w).
template <int ROWS>
void multiply_panel(const Input* x, const Matrix& matrix, int panel, std::int32_t (&sums)[ROWS][PANEL]) {
  const int size = matrix.num_inputs;
  const std::int8_t* weights = matrix.int8s + static_cast<std::size_t>(panel) * PANEL * size;
  const std::int32_t* column_sums = matrix.sums + panel * PANEL;
  const __m512i offset = _mm512_set1_epi32(-128);
  const __m512i first = _mm512_mullo_epi32(_mm512_loadu_si512(column_sums), offset);
  const __m512i second = _mm512_mullo_epi32(_mm512_loadu_si512(column_sums + 16), offset);
  __m512i totals[ROWS][2];
#pragma GCC unroll 16
  for (int row = 0; row < ROWS; ++row) totals[row][0] = first, totals[row][1] = second;
  for (int i = 0; i < size; i += TOGETHER, weights += TOGETHER * PANEL) {
    const __m512i low = _mm512_loadu_si512(weights), high = _mm512_loadu_si512(weights + 64);
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row) {
      std::int32_t four;
      __builtin_memcpy(&four, x + row * size + i, sizeof four);
      const __m512i input = _mm512_set1_epi32(four);
      add_products(totals[row][0], input, low);
      add_products(totals[row][1], input, high);
    }
  }
#pragma GCC unroll 16
  for (int row = 0; row < ROWS; ++row) {
    _mm512_storeu_si512(sums[row], totals[row][0]);
    _mm512_storeu_si512(sums[row] + 16, totals[row][1]);
  }
}

}  // namespace
}  // namespace qwen_aio
