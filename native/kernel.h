// The functions that exist once for every instruction set, and the data they work on.
//
// A kernel is a table of functions compiled for one instruction set. model.cpp calls them through
// the table, so that the library holds code for processors that it does not run on. Every function
// gives the same bits for a row whatever rows it is computed with: integers are summed exactly, and
// the order of every sum of floats depends on the position in the row or in the sequence alone.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qwen_aio {

using half = std::uint16_t;  // the bits of an IEEE binary16

constexpr int PANEL = 32;    // columns of a product that are computed together
constexpr int SLOTS = 16;    // slots whose keys are stored together
constexpr int LEVELS = 127;  // of int8 weights, and of inputs in bytes, on either side of zero
constexpr int FINE = 254;    // parts of a level that a second pass distinguishes

// The right side of a product, in panels of 32 columns (rows of the weight; zeros after the last).
//
// fp32:  [panel][input][32 columns]
// int8:  [panel][input / n][32 columns][n inputs], where n is the kernel's `together`, with a scale
//        and the sum of the weights of each column
//
//         one step of int8, n = 4: 128 bytes
//         column 0         column 1                column 31
//        | w0 w1 w2 w3    | w0 w1 w2 w3   | ...   | w0 w1 w2 w3 |     w0: of input 4 * step
struct Matrix {
  int num_columns = 0;  // a multiple of PANEL
  int num_inputs = 0;
  int num_passes = 1;                  // int8: 2 where inputs in bytes are quantised twice
  const float* floats = nullptr;       // fp32, or
  const std::int8_t* int8s = nullptr;  // int8 with
  const float* scales = nullptr;       // (num_columns,)
  const std::int32_t* sums = nullptr;  // (num_columns,)
  const float* bias = nullptr;         // (num_columns,) or none

  int num_panels() const { return num_columns / PANEL; }

  // Some columns of a matrix without a bias; both numbers are multiples of PANEL.
  Matrix columns(int first, int count) const {
    const std::size_t skipped = static_cast<std::size_t>(first) * num_inputs;
    Matrix result = *this;
    result.num_columns = count;
    if (floats != nullptr) {
      result.floats += skipped;
    } else {
      result.int8s += skipped;
      result.scales += first;
      result.sums += first;
    }
    return result;
  }
};

// The left side: rows in the form that a matrix takes.
struct Operand {
  int num_rows = 0;
  const float* floats = nullptr;  // (num_rows, num_inputs), or
  const void* inputs = nullptr;   // (num_rows, passes, num_inputs), quantised, with
  const float* scales = nullptr;  // (num_rows,)
};

enum class Epilogue {
  store,   // y = x W^T + bias
  add,     // y += x W^T
  swiglu,  // y = silu(gate) * up; a panel holds 16 columns of gate, then 16 of up; y has half as many
};

// Where a row's rotary pair (i, i + size / 2) is turned.
struct Rotation {
  const float* cosines;  // (head_dim / 2,)
  const float* sines;
};

// Rows that one head of keys and values serves: the queries of some rows, of all heads in its group.
struct Query {
  const float* query;  // (head_dim,), scaled
  float* output;       // (head_dim,)
  int num_visible;     // keys, counted from the sequence's first token
};

// Keys and values of one head in one layer. A key is spread over the memory of its SLOTS neighbours,
// so that one load reads the same number of 16 keys:
//
//   keys    [slot / 16][head_dim][16 slots]
//   values  [slot][head_dim]
template <class Number>
struct HeadMemory {
  Number* keys;
  Number* values;
};

// Everything that attention of one task reads: the slots of its sequence, in order.
struct Slots {
  const std::int32_t* slots;
  int count;
};

struct Kernel {
  const char* name;
  int together;     // inputs whose int8 weights are neighbours
  int input_bytes;  // of a quantised input; with two, one pass has to do

  // y = x / sqrt(mean(x^2) + eps) * weight
  void (*normalise)(const float* x, const float* weight, float eps, int size, float* y);

  // inputs = x / scale in `passes` rows: rounded, and what rounding left in FINE parts of a level.
  void (*quantise)(const float* x, int size, int passes, void* inputs, float* scale);

  // The columns of one panel, of all rows.
  void (*multiply)(const Operand& x, const Matrix& matrix, int panel, Epilogue epilogue, float* y, int stride);

  // Turn `head` in place, then scale it.
  void (*rotate)(float* head, int size, Rotation rotation, float scale);

  void (*store_floats)(const float* key, const float* value, int head_dim, HeadMemory<float> memory, int slot);
  void (*store_halves)(const float* key, const float* value, int head_dim, HeadMemory<half> memory, int slot);

  // softmax(query keys^T) values of each query. `scratch`: scratch_floats() floats.
  void (*attend_floats)(const Query* queries, int count, HeadMemory<float> memory, Slots slots, int head_dim,
                        float* scratch);
  void (*attend_halves)(const Query* queries, int count, HeadMemory<half> memory, Slots slots, int head_dim,
                        float* scratch);
};

constexpr int MOST_QUERIES = 6;  // of a tile of attention

// Floats that attention over `count` slots needs: the scores of a tile, padded to whole vectors.
constexpr std::size_t scratch_floats(int count) { return std::size_t(MOST_QUERIES) * (count + 2 * SLOTS); }

extern const Kernel plain_kernel;
#if defined(__x86_64__) || defined(_M_X64)
extern const Kernel avx2_kernel;
extern const Kernel avx512_kernel;
#endif

// The best kernel that this processor runs; the one called `name` if it is not empty. Null if there is none.
const Kernel* choose_kernel(const char* name);

}  // namespace qwen_aio
