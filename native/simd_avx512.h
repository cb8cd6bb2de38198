// Sixteen floats as one AVX-512 vector. See simd_plain.h for what each function does.
#pragma once

#include <immintrin.h>

#include "bits.h"
#include "kernel.h"

namespace qwen_aio {
namespace {

struct Floats {
  __m512 all;
};

constexpr int MOST_ACCUMULATORS = 24;  // Floats that fit into the registers beside operands

inline Floats all(float x) { return {_mm512_set1_ps(x)}; }
inline Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Floats load(const half* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
inline Floats load(const std::int32_t* p) { return {_mm512_cvtepi32_ps(_mm512_loadu_si512(p))}; }
inline Floats load(const std::int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
inline void store(float* p, Floats x) { _mm512_storeu_ps(p, x.all); }
inline void store(half* p, Floats x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x.all, _MM_FROUND_TO_NEAREST_INT));
}

inline Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.all, b.all)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.all, b.all)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.all, b.all)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm512_div_ps(a.all, b.all)}; }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.all, b.all, c.all)}; }
inline Floats larger(Floats a, Floats b) { return {_mm512_max_ps(a.all, b.all)}; }
inline Floats smaller(Floats a, Floats b) { return {_mm512_min_ps(a.all, b.all)}; }
inline Floats larger_magnitude(Floats best, Floats x) {
  const __m512i magnitude = _mm512_castps_si512(_mm512_abs_ps(x.all));
  return {_mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(best.all), magnitude))};
}
inline Floats rounded(Floats x) { return {_mm512_roundscale_ps(x.all, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline Floats power_of_two(Floats n) {
  const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n.all), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23))};
}

// The order of AVX2, so that both kernels give the same bits.
inline float sum(Floats x) {
  const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x.all), 1));
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x.all), high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float largest(Floats x) { return _mm512_reduce_max_ps(x.all); }
inline float largest_magnitude(Floats x) {
  float of[16];
  store(of, x);
  return largest_by_bits(of, 16);
}

}  // namespace
}  // namespace qwen_aio
