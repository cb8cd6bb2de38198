// Sixteen floats in plain C++, for the compiler's vectoriser.
#pragma once

#include <cmath>
#include <cstring>

#include "bits.h"
#include "kernel.h"

namespace qwen_aio {
namespace {

constexpr int LANES = 16;

struct Floats {
  float of[LANES];
};

constexpr int MOST_ACCUMULATORS = 4;  // Floats that are kept at once

template <class Make>
inline Floats each(Make make) {
  Floats y;
  for (int lane = 0; lane < LANES; ++lane) y.of[lane] = make(lane);
  return y;
}

inline Floats all(float x) {
  return each([&](int) { return x; });
}
inline Floats load(const float* p) {
  return each([&](int lane) { return p[lane]; });
}
inline Floats load(const half* p) {
  return each([&](int lane) { return wide(p[lane]); });
}
inline Floats load(const std::int32_t* p) {
  return each([&](int lane) { return static_cast<float>(p[lane]); });
}
inline Floats load(const std::int8_t* p) {
  return each([&](int lane) { return static_cast<float>(p[lane]); });
}
inline void store(float* p, Floats x) { std::memcpy(p, x.of, sizeof x.of); }
inline void store(half* p, Floats x) {
  for (int lane = 0; lane < LANES; ++lane) p[lane] = narrow(x.of[lane]);
}

inline Floats operator+(Floats a, Floats b) {
  return each([&](int lane) { return a.of[lane] + b.of[lane]; });
}
inline Floats operator-(Floats a, Floats b) {
  return each([&](int lane) { return a.of[lane] - b.of[lane]; });
}
inline Floats operator*(Floats a, Floats b) {
  return each([&](int lane) { return a.of[lane] * b.of[lane]; });
}
inline Floats operator/(Floats a, Floats b) {
  return each([&](int lane) { return a.of[lane] / b.of[lane]; });
}
// a b + c, rounded once where the instruction set can.
inline Floats multiply_add(Floats a, Floats b, Floats c) {
#ifdef __ARM_FEATURE_FMA
  return each([&](int lane) { return std::fma(a.of[lane], b.of[lane], c.of[lane]); });
#else
  return each([&](int lane) { return a.of[lane] * b.of[lane] + c.of[lane]; });
#endif
}
// As on x86: of a NaN and a number, the second.
inline Floats larger(Floats a, Floats b) {
  return each([&](int lane) { return a.of[lane] > b.of[lane] ? a.of[lane] : b.of[lane]; });
}
inline Floats smaller(Floats a, Floats b) {
  return each([&](int lane) { return a.of[lane] < b.of[lane] ? a.of[lane] : b.of[lane]; });
}
// The larger of `best`, which has no signs, and the magnitude of `x`. A NaN is the largest of all.
inline Floats larger_magnitude(Floats best, Floats x) {
  return each([&](int lane) {
    const float magnitude = std::fabs(x.of[lane]);
    return bits_of(magnitude) > bits_of(best.of[lane]) ? magnitude : best.of[lane];
  });
}
// To the nearest whole number, to even in the middle.
inline Floats rounded(Floats x) {
  return each([&](int lane) { return std::nearbyintf(x.of[lane]); });
}
// 2^n of whole numbers from -126 to 127; 0 of -127, and of NaN.
inline Floats power_of_two(Floats n) {
  return each([&](int lane) {
    const std::int32_t exponent = n.of[lane] >= -127.0F ? static_cast<std::int32_t>(n.of[lane]) + 127 : 0;
    const auto bits = static_cast<std::uint32_t>(exponent) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return power;
  });
}

// Halves are added until one number is left: the same order on every instruction set.
inline float sum(Floats x) {
  for (int width = LANES / 2; width > 0; width /= 2)
    for (int lane = 0; lane < width; ++lane) x.of[lane] += x.of[lane + width];
  return x.of[0];
}
inline float largest(Floats x) {
  for (int width = LANES / 2; width > 0; width /= 2)
    for (int lane = 0; lane < width; ++lane)
      x.of[lane] = x.of[lane] > x.of[lane + width] ? x.of[lane] : x.of[lane + width];
  return x.of[0];
}
inline float largest_magnitude(Floats x) { return largest_by_bits(x.of, LANES); }

}  // namespace
}  // namespace qwen_aio
