// Floats compared by their bits, which orders numbers without a sign, NaN above all.
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

// The largest of numbers without a sign; NaN if there is one.
inline float largest_by_bits(const float* numbers, int count) {
  float best = 0;
  for (int i = 0; i < count; ++i) best = bits_of(numbers[i]) > bits_of(best) ? numbers[i] : best;
  return best;
}

}  // namespace
}  // namespace qwen_aio
