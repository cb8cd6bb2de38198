// AVX-512 for processors without it, by SIMDe: stands before the compiler's own header of this name.
#pragma once

#include_next <immintrin.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#define __m512 simde__m512
#define __m512i simde__m512i

// What SIMDe lacks, in halves.
inline __m512 emulated_halves(__m256 low, __m256 high) {
  return simde_mm512_insertf32x8(simde_mm512_castps256_ps512(low), high, 1);
}
inline __m512i emulated_halves(__m256i low, __m256i high) {
  return simde_mm512_inserti32x8(simde_mm512_castsi256_si512(low), high, 1);
}
inline __m256 emulated_half(__m512 x, int which) {
  alignas(64) float numbers[16];
  simde_mm512_store_ps(numbers, x);
  return _mm256_load_ps(numbers + 8 * which);
}
inline __m256i emulated_half(__m512i x, int which) {
  alignas(64) int numbers[16];
  simde_mm512_store_si512(numbers, x);
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(numbers + 8 * which));
}
inline __m512 emulated_cvtph_ps(__m256i halves) {
  return emulated_halves(_mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
                         _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1)));
}
inline __m256i emulated_cvtps_ph(__m512 x) {
  return _mm256_set_m128i(_mm256_cvtps_ph(emulated_half(x, 1), _MM_FROUND_TO_NEAREST_INT),
                          _mm256_cvtps_ph(emulated_half(x, 0), _MM_FROUND_TO_NEAREST_INT));
}
inline __m512 emulated_cvtepi32_ps(__m512i x) {
  return emulated_halves(_mm256_cvtepi32_ps(emulated_half(x, 0)), _mm256_cvtepi32_ps(emulated_half(x, 1)));
}
inline __m512i emulated_cvtepi8_epi32(__m128i x) {
  return emulated_halves(_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_srli_si128(x, 8)));
}
inline __m512i emulated_cvtps_epi32(__m512 x) {
  return emulated_halves(_mm256_cvtps_epi32(emulated_half(x, 0)), _mm256_cvtps_epi32(emulated_half(x, 1)));
}
inline float emulated_reduce_max_ps(__m512 x) {
  const __m256 eight = _mm256_max_ps(emulated_half(x, 0), emulated_half(x, 1));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
#define _mm512_cvtph_ps emulated_cvtph_ps
#define _mm512_cvtps_ph(x, rounding) emulated_cvtps_ph(x)
#define _mm512_cvtepi8_epi32 emulated_cvtepi8_epi32
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
#define _mm512_cvtps_epi32 emulated_cvtps_epi32
#define _mm512_reduce_max_ps emulated_reduce_max_ps
