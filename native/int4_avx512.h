// int4 products in AVX-512 VNNI: the 16 levels are looked up as bytes without a sign, for inputs with one.
// Included after simd_avx512.h and int8_avx512.h.
#pragma once

#include <immintrin.h>

#include "int4_levels.h"
#include "kernel.h"

namespace qwen_aio {
namespace {

constexpr int MOST_INT4_ROWS = 8;
constexpr int GROUP_LEVELS = LEVELS;  // of inputs, on either side of zero

struct GroupInputs {
  std::int8_t inputs[GROUP];
  std::int32_t start;  // -128 sum(inputs): a level is looked up as level + 128
};

// Whole numbers within the levels.
inline void store_group(GroupInputs* group, Floats first, Floats second) {
  const __m128i low = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(first.all));
  const __m128i high = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(second.all));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(group->inputs), low);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(group->inputs + 16), high);
  group->start = static_cast<std::int32_t>(-128.0F * sum(first + second));
}

inline __m512i level_table() {
  alignas(16) std::int8_t levels[NUM_LEVELS];
  for (int i = 0; i < NUM_LEVELS; ++i) levels[i] = static_cast<std::int8_t>(INT4_LEVELS[i] ^ -128);
  return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(levels)));
}

// sums += products of ROWS rows with four inputs, from `inputs` on, of both halves of a panel.
template <int ROWS>
inline void add_four(const GroupInputs* x, int num_groups, int input, __m512i low, __m512i high,
                     __m512i (&totals)[ROWS][2]) {
#pragma GCC unroll 16
  for (int row = 0; row < ROWS; ++row) {
    std::int32_t four;
    __builtin_memcpy(&four, x[row * num_groups].inputs + input, sizeof four);
    const __m512i inputs = _mm512_set1_epi32(four);
    add_products(totals[row][0], low, inputs);
    add_products(totals[row][1], high, inputs);
  }
}

// Products of ROWS rows with a panel: exact in a group, then added in the order of the groups. The sums
// stay in memory: registers hold those of the group.
template <int ROWS>
void multiply_panel(const GroupInputs* x, const Matrix& matrix, int panel, float (&sums)[ROWS][PANEL]) {
  const int num_groups = matrix.num_groups();
  const std::size_t first_group = static_cast<std::size_t>(panel) * num_groups;
  const std::uint8_t* weights = matrix.int4s + first_group * (GROUP * PANEL / 2);
  const std::int8_t* factors = matrix.factors + first_group * PANEL;
  const __m512i table = level_table(), half_byte = _mm512_set1_epi8(15);
  for (auto& row : sums) store(row, all(0.0F)), store(row + 16, all(0.0F));
  for (int group = 0; group < num_groups; ++group, ++x, factors += PANEL) {
    __m512i totals[ROWS][2];
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row) totals[row][0] = totals[row][1] = _mm512_set1_epi32(x[row * num_groups].start);
#pragma GCC unroll 4
    for (int i = 0; i < GROUP; i += 8, weights += 4 * PANEL) {
      const __m512i first = _mm512_loadu_si512(weights), second = _mm512_loadu_si512(weights + 64);
      add_four<ROWS>(x, num_groups, i, _mm512_shuffle_epi8(table, _mm512_and_si512(first, half_byte)),
                     _mm512_shuffle_epi8(table, _mm512_and_si512(second, half_byte)), totals);
      add_four<ROWS>(x, num_groups, i + 4,
                     _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi32(first, 4), half_byte)),
                     _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi32(second, 4), half_byte)), totals);
    }
    asm volatile("" ::: "memory");  // GCC 12 would move the sums to registers, and those of the group out of them
    const Floats low = load(factors), high = load(factors + 16);
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row) {
      store(sums[row], multiply_add({_mm512_cvtepi32_ps(totals[row][0])}, low, load(sums[row])));
      store(sums[row] + 16, multiply_add({_mm512_cvtepi32_ps(totals[row][1])}, high, load(sums[row] + 16)));
    }
  }
}

}  // namespace
}  // namespace qwen_aio
