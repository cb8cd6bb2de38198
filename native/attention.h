// Attention of some queries over the keys and values of one head.
// Included after a simd_*.h, once for every kernel.
//
// A query's scores are computed for all its keys, then its softmax, then the mean of the values: the
// order of every sum is that of the sequence, whatever slots hold it and whoever is in the tile.
#pragma once

#include <limits>

#include "kernel.h"
#include "rows.h"

namespace qwen_aio {
namespace {

// Neighbouring slots in one block of SLOTS: `count` keys from position `first` on.
struct Run {
  int first;
  int block;
  int lane;
  int count;
};

inline Run run_at(Slots slots, int first) {
  const int slot = slots.slots[first];
  Run run{first, slot / SLOTS, slot % SLOTS, 1};
  const int most = slots.count - first < SLOTS - run.lane ? slots.count - first : SLOTS - run.lane;
  while (run.count < most && slots.slots[first + run.count] == slot + run.count) ++run.count;
  return run;
}

// scores[query][position] = query . key, the sum in the order of the dimensions.
template <int QUERIES, class Number>
void score(const Query* queries, const Number* keys, Slots slots, int head_dim, float* scores, int stride) {
  constexpr int ROOM = MOST_ACCUMULATORS / QUERIES;
  constexpr int RUNS = ROOM < 1 ? 1 : ROOM > 8 ? 8 : ROOM;  // computed at once, to hide latencies
  for (int position = 0; position < slots.count;) {
    Run runs[RUNS];
    const Number* blocks[RUNS];
    int count = 0, last = position;
    for (int i = 0; i < RUNS; ++i) {
      if (position < slots.count) {
        last = position;
        ++count;
      }
      runs[i] = run_at(slots, last);  // after the end, the last one again
      blocks[i] = keys + static_cast<std::size_t>(runs[i].block) * SLOTS * head_dim;
      position = last + runs[i].count;
    }
    Floats sums[QUERIES][RUNS];
#pragma GCC unroll 8
    for (int query = 0; query < QUERIES; ++query)
#pragma GCC unroll 8
      for (int i = 0; i < RUNS; ++i) sums[query][i] = all(0.0F);
    for (int dimension = 0; dimension < head_dim; ++dimension) {
#pragma GCC unroll 8
      for (int i = 0; i < RUNS; ++i) {
        const Floats key = load(blocks[i] + dimension * SLOTS);
#pragma GCC unroll 8
        for (int query = 0; query < QUERIES; ++query)
          sums[query][i] = multiply_add(all(queries[query].query[dimension]), key, sums[query][i]);
      }
    }
    for (int i = 0; i < count; ++i) {
      const Run& run = runs[i];
      for (int query = 0; query < QUERIES; ++query) {
        float* row = scores + query * stride + run.first;
        if (run.count == SLOTS) {
          store(row, sums[query][i]);
        } else {
          float lanes[SLOTS];
          store(lanes, sums[query][i]);
          for (int key = 0; key < run.count; ++key) row[key] = lanes[run.lane + key];
        }
      }
    }
  }
}

// scores -> exp(score - largest), zeros after the visible ones up to `count`; the inverse of their sum.
inline float weigh(float* scores, int num_visible, int count) {
  const int padded = (count + SLOTS - 1) / SLOTS * SLOTS;
  for (int i = num_visible; i < padded; ++i) scores[i] = -INFINITY;
  Floats best = all(-INFINITY);
  for (int i = 0; i < padded; i += SLOTS) best = larger(best, load(scores + i));
  const Floats most = all(largest(best));
  Floats total = all(0.0F);
  for (int i = 0; i < padded; i += SLOTS) {
    const Floats weights = exponential(load(scores + i) - most);
    store(scores + i, weights);
    total = total + weights;
  }
  for (int i = num_visible; i < count; ++i) scores[i] = 0.0F;
  return 1.0F / sum(total);
}

// output = sum of weight * value over the positions, in their order; DIMENSIONS numbers of it, from `first` on.
template <int QUERIES, int DIMENSIONS, class Number>
void gather(const Query* queries, const Number* values, Slots slots, int head_dim, int first, const float* weights,
            int stride, const float* inverses) {
  constexpr int VECTORS = DIMENSIONS / STEP;
  Floats sums[QUERIES][VECTORS];
#pragma GCC unroll 8
  for (int query = 0; query < QUERIES; ++query)
#pragma GCC unroll 8
    for (int i = 0; i < VECTORS; ++i) sums[query][i] = all(0.0F);
  for (int position = 0; position < slots.count; ++position) {
    const Number* value = values + static_cast<std::size_t>(slots.slots[position]) * head_dim + first;
#pragma GCC unroll 8
    for (int i = 0; i < VECTORS; ++i) {
      const Floats numbers = load(value + i * STEP);
#pragma GCC unroll 8
      for (int query = 0; query < QUERIES; ++query)
        sums[query][i] = multiply_add(all(weights[query * stride + position]), numbers, sums[query][i]);
    }
  }
  for (int query = 0; query < QUERIES; ++query)
    for (int i = 0; i < VECTORS; ++i)
      store(queries[query].output + first + i * STEP, sums[query][i] * all(inverses[query]));
}

template <int QUERIES, class Number>
void attend_tile(const Query* queries, HeadMemory<Number> memory, Slots slots, int head_dim, float* scratch) {
  const int stride = (slots.count + 2 * SLOTS - 1) / SLOTS * SLOTS;
  score<QUERIES>(queries, memory.keys, slots, head_dim, scratch, stride);
  float inverses[QUERIES];
  for (int query = 0; query < QUERIES; ++query)
    inverses[query] = weigh(scratch + query * stride, queries[query].num_visible, slots.count);
  constexpr int ROOM = MOST_ACCUMULATORS / QUERIES;
  int first = 0;
  if constexpr (ROOM >= 4)
    for (; first + 64 <= head_dim; first += 64)
      gather<QUERIES, 64>(queries, memory.values, slots, head_dim, first, scratch, stride, inverses);
  if constexpr (ROOM >= 2)
    for (; first + 32 <= head_dim; first += 32)
      gather<QUERIES, 32>(queries, memory.values, slots, head_dim, first, scratch, stride, inverses);
  for (; first < head_dim; first += 16)
    gather<QUERIES, 16>(queries, memory.values, slots, head_dim, first, scratch, stride, inverses);
}

template <class Number>
void attend(const Query* queries, int count, HeadMemory<Number> memory, Slots slots, int head_dim, float* scratch) {
  in_blocks<MOST_QUERIES>(count, 1, [&](int first, int height) {
    int num_visible = 0;
    for (int i = first; i < first + height; ++i)
      num_visible = num_visible < queries[i].num_visible ? queries[i].num_visible : num_visible;
    with_height<MOST_QUERIES>(height, [&](auto tile) {
      attend_tile<tile.value>(queries + first, memory, Slots{slots.slots, num_visible}, head_dim, scratch);
    });
  });
}

// A key beyond what a half holds would be infinite, and a whole sequence with it.
inline Floats bounded(Floats key, const half*) { return larger(all(-65504.0F), smaller(all(65504.0F), key)); }
inline Floats bounded(Floats key, const float*) { return key; }

// To queries that do not see it, a value is added with a weight of zero, and zero times NaN would be NaN.
inline Floats finite(Floats value, float most) { return larger(all(-most), smaller(value, all(most))); }
inline Floats finite(Floats value, const half*) { return finite(value, 65504.0F); }
inline Floats finite(Floats value, const float*) { return finite(value, std::numeric_limits<float>::max()); }

template <class Number>
void store_head(const float* key, const float* value, int head_dim, HeadMemory<Number> memory, int slot) {
  Number numbers[STEP];
  Number* keys = memory.keys + static_cast<std::size_t>(slot / SLOTS) * SLOTS * head_dim + slot % SLOTS;
  Number* values = memory.values + static_cast<std::size_t>(slot) * head_dim;
  for (int i = 0; i < head_dim; i += STEP) {
    store(numbers, bounded(load(key + i), keys));
    for (int lane = 0; lane < STEP; ++lane) keys[(i + lane) * SLOTS] = numbers[lane];
    store(values + i, finite(load(value + i), values));
  }
}

}  // namespace
}  // namespace qwen_aio
