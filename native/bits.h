// Floats by their bits: compared, which orders numbers without a sign, NaN above all; and made of halves.
#pragma once

#include <cstdint>
#include <cstring>

namespace qwen_aio {
namespace {

inline std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float float_of(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// The number of a half: its exponent is 112 less than that of a float.
inline float wide(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16, magnitude = (half & 0x7fffU) << 13;
  if (magnitude >= 0x0f800000U) return float_of(sign | magnitude | 0x70000000U);  // infinite, or no number
  return float_of(sign | bits_of(float_of(magnitude) * 0x1p112F));
}

// The nearest half, the even one in the middle.
inline std::uint16_t narrow(float x) {
  const std::uint32_t sign = bits_of(x) >> 16 & 0x8000U, magnitude = bits_of(x) & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return static_cast<std::uint16_t>(sign | 0x7e00U);   // no number
  if (magnitude >= 0x477ff000U) return static_cast<std::uint16_t>(sign | 0x7c00U);  // from 65520 on, infinite
  if (magnitude < 0x38800000U)  // below 2^-14, multiples of 2^-24: what adding 0.5 rounds to
    return static_cast<std::uint16_t>(sign | (bits_of(float_of(magnitude) + 0.5F) - bits_of(0.5F)));
  const std::uint32_t rounded = magnitude + 0xfffU + (magnitude >> 13 & 1U);
  return static_cast<std::uint16_t>(sign | (rounded - 0x38000000U) >> 13);
}

// The largest of numbers without a sign; NaN if there is one.
inline float largest_by_bits(const float* numbers, int count) {
  float best = 0;
  for (int i = 0; i < count; ++i) best = bits_of(numbers[i]) > bits_of(best) ? numbers[i] : best;
  return best;
}

}  // namespace
}  // namespace qwen_aio
