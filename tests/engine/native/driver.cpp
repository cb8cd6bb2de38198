// driver SECONDS SEED: random models and batches, on every kernel that runs here, in 1 to 4 threads. Final states and
// logits have the bits of each sequence alone in one thread, or the exit status is 1.
//
// scripts/sanitize-native builds it with sanitizers, which see what else goes wrong. All memory is as large as it must
// be and no larger, so that they see each step over its end.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <numeric>
#include <random>
#include <vector>

#include "model.h"

namespace {

using namespace qwen_aio;

std::mt19937 random_bits;

int random_int(int least, int most) { return std::uniform_int_distribution<int>(least, most)(random_bits); }

class RandomWeights {
 public:
  static constexpr int NUM_POSITIONS = 64, NUM_TOKENS = 40;

  explicit RandomWeights(const Kernel& kernel) : kernel_(kernel), num_passes_(random_int(0, 2)) {
    const int num_kv_heads = random_int(1, 2), head_dim = 16 * random_int(1, 5);
    const int num_heads = num_kv_heads * random_int(1, 4);
    const Shape shape{
        random_int(1, 2), 32 * random_int(1, 3), 16 * random_int(1, 5), num_heads, num_kv_heads, head_dim, 1e-6F};
    const int qkv_size = (num_heads + 2 * num_kv_heads) * head_dim;
    const bool has_norms = random_int(0, 1) == 1;
    for (int i = 0; i < shape.num_layers; ++i) {
      Matrix qkv = matrix(qkv_size, shape.hidden_size);
      if (random_int(0, 1) == 1) qkv.bias = floats(qkv.num_columns);
      layers_.push_back({floats(shape.hidden_size), qkv, has_norms ? floats(head_dim) : nullptr,
                         has_norms ? floats(head_dim) : nullptr, matrix(shape.hidden_size, num_heads * head_dim),
                         floats(shape.hidden_size), matrix(2 * shape.intermediate_size, shape.hidden_size),
                         matrix(shape.hidden_size, shape.intermediate_size)});
    }
    const Matrix output = matrix(NUM_TOKENS, shape.hidden_size);
    const int num_angles = NUM_POSITIONS * (head_dim / 2);
    weights_ = {
        shape, layers_.data(), output, output, floats(shape.hidden_size), floats(num_angles), floats(num_angles)};
  }

  const Weights& weights() const { return weights_; }
  bool is_int8() const { return num_passes_ > 0; }

 private:
  const float* floats(int count) {
    std::vector<float>& numbers = floats_.emplace_back(count);
    for (float& number : numbers) number = std::uniform_real_distribution<float>(-1, 1)(random_bits);
    return numbers.data();
  }

  Matrix matrix(int num_rows, int num_inputs) {
    Matrix result;
    result.num_columns = (num_rows + PANEL - 1) / PANEL * PANEL;
    result.num_inputs = num_inputs;
    if (!is_int8()) {
      result.floats = floats(result.num_columns * num_inputs);
      return result;
    }
    std::vector<std::int8_t>& numbers = int8s_.emplace_back(result.num_columns * num_inputs);
    std::vector<std::int32_t>& sums = sums_.emplace_back(result.num_columns);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      numbers[i] = static_cast<std::int8_t>(random_int(-LEVELS, LEVELS));
      const std::size_t panel = i / (std::size_t{PANEL} * num_inputs), column = i / kernel_.together % PANEL;
      sums[panel * PANEL + column] += numbers[i];
    }
    result.num_passes = num_passes_;
    result.int8s = numbers.data();
    result.sums = sums.data();
    result.scales = floats(result.num_columns);
    return result;
  }

  const Kernel& kernel_;
  const int num_passes_;  // 0: fp32
  Weights weights_{};
  std::vector<Layer> layers_;
  std::deque<std::vector<float>> floats_;
  std::deque<std::vector<std::int8_t>> int8s_;
  std::deque<std::vector<std::int32_t>> sums_;
};

struct Sequence {
  std::vector<std::int32_t> ids, slots;
  int num_computed = 0;
  std::vector<float> states;  // of the computed rows
};

// Keys and values of a model, all NaN until they are stored.
class Pool {
 public:
  Pool(const RandomWeights& random, int num_slots) : is_half_(random.is_int8()) {
    num_slots_ = (num_slots + SLOTS - 1) / SLOTS * SLOTS;
    const Shape& shape = random.weights().shape;
    bytes_.assign(
        std::size_t(shape.num_layers) * 2 * shape.num_kv_heads * shape.head_dim * num_slots_ * (is_half_ ? 2 : 4),
        0xFF);
  }

  Memory memory() { return {bytes_.data(), num_slots_, is_half_}; }

 private:
  const bool is_half_;
  int num_slots_;
  std::vector<unsigned char> bytes_;
};

// One step, of so many further rows of each sequence; those of which there are none are left out.
void step(Model& model, const Shape& shape, Pool& pool, std::vector<Sequence>& sequences,
          const std::vector<int>& counts) {
  std::vector<std::int32_t> ids, positions;
  std::vector<std::vector<std::int32_t>> slots;
  std::vector<Span> spans;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (counts[i] == 0) continue;
    Sequence& sequence = sequences[i];
    const int end = sequence.num_computed + counts[i];
    slots.emplace_back(sequence.slots.begin(), sequence.slots.begin() + end);
    spans.push_back({static_cast<int>(ids.size()), counts[i], sequence.num_computed, slots.back().data()});
    for (int position = sequence.num_computed; position < end; ++position) {
      ids.push_back(sequence.ids[position]);
      positions.push_back(position);
    }
  }
  const int num_rows = static_cast<int>(ids.size()), num_spans = static_cast<int>(spans.size());
  std::vector<std::int32_t> wanted(num_rows);
  std::iota(wanted.begin(), wanted.end(), 0);
  std::vector<float> states(ids.size() * shape.hidden_size);
  const Batch batch{num_rows, ids.data(), positions.data(), num_spans, spans.data(), num_rows, wanted.data()};
  model.forward(batch, pool.memory(), states.data());
  auto row = states.begin();
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const auto end = row + std::ptrdiff_t(counts[i]) * shape.hidden_size;
    sequences[i].states.insert(sequences[i].states.end(), row, end);
    sequences[i].num_computed += counts[i];
    row = end;
  }
}

std::vector<float> logits(Model& model, const Weights& weights, const std::vector<float>& states) {
  const int num_rows = static_cast<int>(states.size()) / weights.shape.hidden_size;
  std::vector<float> result(std::size_t(num_rows) * weights.output.num_columns);
  model.logits(states.data(), num_rows, 0, weights.output.num_columns, result.data());
  return result;
}

bool are_same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<Sequence> random_sequences(int num_slots) {
  std::vector<Sequence> sequences(random_int(1, 4));
  std::vector<std::int32_t> slots(num_slots);
  std::iota(slots.begin(), slots.end(), 0);
  std::rotate(slots.begin(), slots.begin() + random_int(0, num_slots - 1), slots.end());
  if (random_int(0, 1) == 1) std::shuffle(slots.begin(), slots.end(), random_bits);
  auto first = slots.begin();
  for (Sequence& sequence : sequences) {
    const int length = random_int(1, num_slots / 4);
    sequence.slots.assign(first, first + length);
    first += length;
    for (int i = 0; i < length; ++i) sequence.ids.push_back(random_int(0, RandomWeights::NUM_TOKENS - 1));
  }
  return sequences;
}

// In steps of random parts.
void compute(Model& model, const Shape& shape, Pool& pool, std::vector<Sequence>& sequences) {
  for (;;) {
    std::vector<int> counts;
    for (const Sequence& sequence : sequences)
      counts.push_back(random_int(0, static_cast<int>(sequence.ids.size()) - sequence.num_computed));
    const bool is_over = std::all_of(sequences.begin(), sequences.end(), [](const Sequence& sequence) {
      return sequence.num_computed == static_cast<int>(sequence.ids.size());
    });
    if (is_over) return;
    step(model, shape, pool, sequences, counts);  // which may be one of no rows
  }
}

bool round_is_exact(const Kernel& kernel, int num_threads) {
  constexpr int NUM_SLOTS = 120;
  const RandomWeights random(kernel);
  const Weights& weights = random.weights();
  Model team(weights, kernel, num_threads), alone(weights, kernel, 1);
  std::vector<Sequence> sequences = random_sequences(NUM_SLOTS);
  Pool pool(random, NUM_SLOTS);
  compute(team, weights.shape, pool, sequences);
  for (const Sequence& sequence : sequences) {
    std::vector<Sequence> single{{sequence.ids, sequence.slots, 0, {}}};
    Pool own(random, NUM_SLOTS);
    step(alone, weights.shape, own, single, {static_cast<int>(sequence.ids.size())});
    if (!are_same(single[0].states, sequence.states)) return false;
    if (!are_same(logits(alone, weights, sequence.states), logits(team, weights, sequence.states))) return false;
  }
  return true;
}

}  // namespace

int main(int, char** arguments) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::atoi(arguments[1]));
  random_bits.seed(static_cast<unsigned>(std::atoi(arguments[2])));
  int num_rounds = 0;
  do {
    for (const char* name : {"plain", "avx2", "avx512"}) {
      const Kernel* kernel = choose_kernel(name);
      if (kernel == nullptr) continue;
      for (int num_threads = 1; num_threads <= 4; ++num_threads, ++num_rounds)
        if (!round_is_exact(*kernel, num_threads)) {
          std::printf("%s in %d threads: other bits than alone, in round %d\n", name, num_threads, num_rounds);
          return 1;
        }
    }
  } while (std::chrono::steady_clock::now() < end);
  std::printf("%d rounds\n", num_rounds);
  return 0;
}
