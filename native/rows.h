// What is done to one row: the norm, quantisation, rotary positions, SwiGLU.
// Included after a simd_*.h, once for every kernel.
#pragma once

#include <cmath>
#include <limits>

#include "kernel.h"

namespace qwen_aio {
namespace {

constexpr int STEP = 16;  // numbers of one Floats

// exp(x) to within two units in the last place; 0 below -87.7. After Cephes' expf by Stephen Moshier:
// 2^n exp(r) with n = round(x / log 2), and a polynomial for exp(r).
inline Floats exponential(Floats x) {
  const Floats bounded = larger(all(-88.0F), smaller(all(88.0F), x));  // in this order, NaN stays NaN
  const Floats n = rounded(bounded * all(1.44269504F));
  Floats r = multiply_add(n, all(-0.693359375F), bounded);
  r = multiply_add(n, all(2.12194440e-4F), r);
  Floats p = all(1.9875691500e-4F);
  p = multiply_add(p, r, all(1.3981999507e-3F));
  p = multiply_add(p, r, all(8.3334519073e-3F));
  p = multiply_add(p, r, all(4.1665795894e-2F));
  p = multiply_add(p, r, all(1.6666665459e-1F));
  p = multiply_add(p, r, all(5.0000001201e-1F));
  return multiply_add(p * r, r, r + all(1.0F)) * power_of_two(n);
}

inline Floats silu(Floats x) { return x / (all(1.0F) + exponential(all(0.0F) - x)); }

void normalise(const float* x, const float* weight, float eps, int size, float* y) {
  Floats squares = all(0.0F);
  for (int i = 0; i < size; i += STEP) squares = multiply_add(load(x + i), load(x + i), squares);
  const Floats factor = all(1.0F / std::sqrt(sum(squares) / static_cast<float>(size) + eps));
  for (int i = 0; i < size; i += STEP) store(y + i, load(x + i) * factor * load(weight + i));
}

void quantise(const float* x, int size, int passes, void* inputs, float* scale) {
  Input* first = static_cast<Input*>(inputs);
  Floats best = all(0.0F);
  for (int i = 0; i < size; i += STEP) best = larger_magnitude(best, load(x + i));
  const float most = largest_magnitude(best), most_level = static_cast<float>(input_levels(size));
  const bool is_finite = most <= std::numeric_limits<float>::max();
  *scale = is_finite ? most / most_level : std::numeric_limits<float>::quiet_NaN();
  // Of a row of zeros, or of numbers that are none, all levels are 0.
  const Floats levels = all(is_finite && most > 1e-30F ? most_level / most : 0.0F);
  for (int i = 0; i < size; i += STEP) {
    const Floats exact = is_finite ? load(x + i) * levels : all(0.0F), level = rounded(exact);
    store_inputs(first + i, level);
    if (passes == 2) store_inputs(first + size + i, rounded((exact - level) * all(FINE)));
  }
}

void rotate(float* head, int size, Rotation rotation, float scale) {
  const int middle = size / 2;
  for (int i = 0; i < middle; ++i) {
    const float x = head[i], y = head[middle + i], cosine = rotation.cosines[i], sine = rotation.sines[i];
    head[i] = (x * cosine - y * sine) * scale;
    head[middle + i] = (y * cosine + x * sine) * scale;
  }
}

}  // namespace
}  // namespace qwen_aio
