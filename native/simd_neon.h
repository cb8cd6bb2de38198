// Sixteen floats as four NEON vectors. See simd_plain.h for what each function does.
#pragma once

#include <arm_neon.h>

#include "bits.h"
#include "kernel.h"

namespace qwen_aio {
namespace {

constexpr int LANES = 16;

struct Floats {
  float32x4_t of[4];
};

constexpr int MOST_ACCUMULATORS = 6;  // Floats that fit into the registers beside operands

template <class Make>
inline Floats each(Make make) {
  return {{make(0), make(1), make(2), make(3)}};
}

inline Floats all(float x) {
  return each([&](int) { return vdupq_n_f32(x); });
}
inline Floats load(const float* p) {
  return each([&](int i) { return vld1q_f32(p + 4 * i); });
}
inline Floats load(const half* p) {
  return each([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
}
inline Floats load(const std::int32_t* p) {
  return each([&](int i) { return vcvtq_f32_s32(vld1q_s32(p + 4 * i)); });
}
inline Floats load(const std::int8_t* p) {
  return each([&](int i) {
    const int16x8_t eight = vmovl_s8(vld1_s8(p + i / 2 * 8));
    return vcvtq_f32_s32(vmovl_s16(i % 2 == 0 ? vget_low_s16(eight) : vget_high_s16(eight)));
  });
}
inline void store(float* p, Floats x) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.of[i]);
}
inline void store(half* p, Floats x) {
  for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(x.of[i])));
}

inline Floats operator+(Floats a, Floats b) {
  return each([&](int i) { return vaddq_f32(a.of[i], b.of[i]); });
}
inline Floats operator-(Floats a, Floats b) {
  return each([&](int i) { return vsubq_f32(a.of[i], b.of[i]); });
}
inline Floats operator*(Floats a, Floats b) {
  return each([&](int i) { return vmulq_f32(a.of[i], b.of[i]); });
}
inline Floats operator/(Floats a, Floats b) {
  return each([&](int i) { return vdivq_f32(a.of[i], b.of[i]); });
}
inline Floats multiply_add(Floats a, Floats b, Floats c) {
  return each([&](int i) { return vfmaq_f32(c.of[i], a.of[i], b.of[i]); });
}
// Compared and chosen: NEON's own maximum of a NaN and a number is another than that of x86.
inline float32x4_t larger(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
inline Floats larger(Floats a, Floats b) {
  return each([&](int i) { return larger(a.of[i], b.of[i]); });
}
inline Floats smaller(Floats a, Floats b) {
  return each([&](int i) { return vbslq_f32(vcltq_f32(a.of[i], b.of[i]), a.of[i], b.of[i]); });
}
inline Floats larger_magnitude(Floats best, Floats x) {
  return each([&](int i) {
    const uint32x4_t magnitude = vreinterpretq_u32_f32(vabsq_f32(x.of[i]));
    return vreinterpretq_f32_u32(vmaxq_u32(vreinterpretq_u32_f32(best.of[i]), magnitude));
  });
}
inline Floats rounded(Floats x) {
  return each([&](int i) { return vrndnq_f32(x.of[i]); });
}
inline Floats power_of_two(Floats n) {
  return each([&](int i) {
    const int32x4_t exponent = vaddq_s32(vcvtq_s32_f32(n.of[i]), vdupq_n_s32(127));
    return vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23));
  });
}

// Halves are added until one number is left: the order of the other kernels, so that all give the same bits.
inline float sum(Floats x) {
  const float32x4_t four = vaddq_f32(vaddq_f32(x.of[0], x.of[2]), vaddq_f32(x.of[1], x.of[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
inline float largest(Floats x) {
  float of[4];
  vst1q_f32(of, larger(larger(x.of[0], x.of[2]), larger(x.of[1], x.of[3])));
  const float even = of[0] > of[2] ? of[0] : of[2], odd = of[1] > of[3] ? of[1] : of[3];
  return even > odd ? even : odd;
}
inline float largest_magnitude(Floats x) {
  float of[16];
  store(of, x);
  return largest_by_bits(of, 16);
}

}  // namespace
}  // namespace qwen_aio
