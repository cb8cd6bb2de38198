// int4 products in AVX2: the 16 levels are looked up as bytes without a sign, which widen at once, for int16 inputs.
// Included after simd_avx2.h and int8_avx2.h.
#pragma once

#include <immintrin.h>

#include "int4_levels.h"
#include "kernel.h"

namespace qwen_aio {
namespace {

constexpr int MOST_INT4_ROWS = 8;
constexpr int GROUP_LEVELS = INT16_MAX;  // of inputs, on either side of zero
static_assert(INT32_MAX / (2 * (LEVELS + 1) * GROUP_LEVELS) >= GROUP, "sums of a group fit into 32 bits");

struct GroupInputs {
  Input inputs[GROUP];
  std::int32_t start;  // -128 sum(inputs): a level is looked up as level + 128
};

// Whole numbers within the levels.
inline void store_group(GroupInputs* group, Floats first, Floats second) {
  store_inputs(group->inputs, first);
  store_inputs(group->inputs + 16, second);
  group->start = static_cast<std::int32_t>(-128.0F * sum(first + second));
}

inline __m256i level_table() {
  alignas(16) std::int8_t levels[NUM_LEVELS];
  for (int i = 0; i < NUM_LEVELS; ++i) levels[i] = static_cast<std::int8_t>(INT4_LEVELS[i] ^ -128);
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(levels)));
}

// Totals of a vector of 8 columns += products of ROWS rows with two inputs.
template <int ROWS, int VECTORS>
inline void add_two(const GroupInputs* x, int num_groups, int input, int vector, __m256i levels,
                    __m256i (&totals)[ROWS][VECTORS]) {
#pragma GCC unroll 8
  for (int row = 0; row < ROWS; ++row) {
    std::int32_t two;
    __builtin_memcpy(&two, x[row * num_groups].inputs + input, sizeof two);
    const __m256i products = _mm256_madd_epi16(levels, _mm256_set1_epi32(two));
    totals[row][vector] = _mm256_add_epi32(totals[row][vector], products);
    asm("" : "+x"(totals[row][vector]));  // GCC 12 would first add up products, and run out of registers
  }
}

// Products of ROWS rows with VECTORS * 8 columns of a panel, from vector `first` on: exact in a group,
// then added in the order of the groups. The sums stay in memory: registers hold those of the group.
template <int ROWS, int VECTORS>
__attribute__((noinline)) void multiply_columns(const GroupInputs* x, const Matrix& matrix, int panel, int first,
                                                float (&sums)[ROWS][PANEL]) {
  const int num_groups = matrix.num_groups();
  const std::size_t first_group = static_cast<std::size_t>(panel) * num_groups;
  const std::uint8_t* weights = matrix.int4s + first_group * (GROUP * PANEL / 2) + first * 32;
  const std::int8_t* factors = matrix.factors + first_group * PANEL + first * 8;
  const __m256i table = level_table(), half_byte = _mm256_set1_epi8(15), even = _mm256_set1_epi16(255);
  for (int group = 0; group < num_groups; ++group, ++x, factors += PANEL) {
    __m256i totals[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 4
      for (int vector = 0; vector < VECTORS; ++vector)
        totals[row][vector] = _mm256_set1_epi32(x[row * num_groups].start);
    for (int i = 0; i < GROUP; i += 8, weights += 4 * PANEL) {
#pragma GCC unroll 4
      for (int vector = 0; vector < VECTORS; ++vector) {
        const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + vector * 32));
        const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(both, half_byte));
        add_two<ROWS>(x, num_groups, i, vector, _mm256_and_si256(low, even), totals);
        add_two<ROWS>(x, num_groups, i + 2, vector, _mm256_srli_epi16(low, 8), totals);
        const __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(both, 4), half_byte));
        add_two<ROWS>(x, num_groups, i + 4, vector, _mm256_and_si256(high, even), totals);
        add_two<ROWS>(x, num_groups, i + 6, vector, _mm256_srli_epi16(high, 8), totals);
      }
    }
#pragma GCC unroll 4
    for (int vector = 0; vector < VECTORS; ++vector) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(factors + vector * 8));
      const __m256 factor = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
#pragma GCC unroll 8
      for (int row = 0; row < ROWS; ++row) {
        float* p = sums[row] + (first + vector) * 8;
        const __m256 total = _mm256_cvtepi32_ps(totals[row][vector]);
        _mm256_storeu_ps(p, _mm256_fmadd_ps(total, factor, _mm256_loadu_ps(p)));
      }
    }
  }
}

template <int ROWS>
void multiply_panel(const GroupInputs* x, const Matrix& matrix, int panel, float (&sums)[ROWS][PANEL]) {
  for (auto& row : sums) store(row, all(0.0F)), store(row + 16, all(0.0F));
  if constexpr (ROWS <= 2) {
    multiply_columns<ROWS, 4>(x, matrix, panel, 0, sums);
  } else {
    for (int vector = 0; vector < 4; ++vector) multiply_columns<ROWS, 1>(x, matrix, panel, vector, sums);
  }
}

}  // namespace
}  // namespace qwen_aio
