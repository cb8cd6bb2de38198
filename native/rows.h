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

// How a row is rounded to whole numbers of `most_level` levels on either side of zero.
class Rounding {
 public:
  Rounding(const float* x, int size, int most_level) {
    Floats best = all(0.0F);
    for (int i = 0; i < size; i += STEP) best = larger_magnitude(best, load(x + i));
    const float most = largest_magnitude(best), most_float = static_cast<float>(most_level);
    is_finite_ = most <= std::numeric_limits<float>::max();
    scale_ = is_finite_ ? most / most_float : std::numeric_limits<float>::quiet_NaN();
    // Of a row of zeros, or of numbers that are none, all levels are 0.
    levels_ = is_finite_ && most > 1e-30F ? most_float / most : 0.0F;
  }

  float scale() const { return scale_; }
  Floats exact(const float* x) const { return is_finite_ ? load(x) * all(levels_) : all(0.0F); }
  // What remains of an exact level, in FINE parts.
  static Floats rest(Floats exact) { return rounded((exact - rounded(exact)) * all(FINE)); }

 private:
  bool is_finite_;
  float scale_;
  float levels_;
};

void quantise(const float* x, int size, int passes, void* inputs, float* scale) {
  Input* first = static_cast<Input*>(inputs);
  const Rounding rounding(x, size, input_levels(size));
  *scale = rounding.scale();
  for (int i = 0; i < size; i += STEP) {
    const Floats exact = rounding.exact(x + i);
    store_inputs(first + i, rounded(exact));
    if (passes == 2) store_inputs(first + size + i, Rounding::rest(exact));
  }
}

// The last group is filled up with zeros.
void quantise_groups(const float* x, int size, int passes, void* groups, float* scale) {
  static_assert(GROUP == 2 * STEP);
  GroupInputs* group = static_cast<GroupInputs*>(groups);
  const int num_groups = (size + GROUP - 1) / GROUP;
  const Rounding rounding(x, size, GROUP_LEVELS);
  *scale = rounding.scale();
  for (int i = 0; i < size; i += GROUP, ++group) {
    const Floats first = rounding.exact(x + i), second = i + STEP < size ? rounding.exact(x + i + STEP) : all(0.0F);
    store_group(group, rounded(first), rounded(second));
    if (passes == 2) store_group(group + num_groups, Rounding::rest(first), Rounding::rest(second));
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
