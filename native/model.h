// A model in memory, and the rows of one step. Owns no weights: they belong to the caller.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "buffer.h"
#include "kernel.h"
#include "team.h"

namespace qwen_aio {

struct Shape {
  int num_layers;
  int hidden_size;
  int intermediate_size;
  int num_heads;
  int num_kv_heads;
  int head_dim;
  float rms_norm_eps;
};

struct Layer {
  const float* attention_norm = nullptr;  // (hidden_size,)
  Matrix qkv;                             // columns: queries, keys, values
  const float* query_norm = nullptr;      // (head_dim,), or none
  const float* key_norm = nullptr;
  Matrix attention_output;
  const float* mlp_norm = nullptr;
  Matrix gate_up;  // each panel: 16 columns of gate, the same 16 of up
  Matrix down;
};

// Consecutive rows of a step that belong to one sequence.
struct Span {
  int first_row;
  int num_rows;
  int num_before;             // tokens of the sequence before the first row
  const std::int32_t* slots;  // of its tokens up to the last row: (num_before + num_rows,)
};

struct Batch {
  int num_rows;
  const std::int32_t* ids;        // (num_rows,)
  const std::int32_t* positions;  // (num_rows,)
  int num_spans;
  const Span* spans;  // every row once, in order
  int num_wanted;
  const std::int32_t* wanted;  // rows whose final states are wanted
};

// Keys and values of all layers. Per layer: the keys of all heads, then their values (see HeadMemory).
struct Memory {
  void* numbers;
  int num_slots;  // a multiple of SLOTS
  bool is_half;
};

// Everything that a model computes with.
struct Weights {
  Shape shape;
  const Layer* layers;  // (num_layers,)
  Matrix embedding;     // in the layout of a product
  Matrix output;
  const float* norm;     // (hidden_size,)
  const float* cosines;  // (positions, head_dim / 2)
  const float* sines;
};

class Model {
 public:
  Model(const Weights& weights, const Kernel& kernel, int num_threads);

  // Final states of the wanted rows, (num_wanted, hidden_size). Fills the slots of all rows.
  void forward(const Batch& batch, Memory memory, float* states);

  // (num_rows, hidden_size) -> (num_rows, num_columns): some columns of the output, in whole panels.
  void logits(const float* states, int num_rows, int first_column, int num_columns, float* logits);

 private:
  // The queries of some rows of a span, of all heads that share keys and values.
  struct AttentionTask {
    const Span* span;
    int first_row;  // of the span
    int num_rows;
    int kv_head;
  };

  // What one thread needs for itself.
  struct Workspace {
    Buffer<float> scores;
    std::vector<Query> queries;
  };

  int qkv_size() const;  // columns of the product
  int group_size() const { return shape_.num_heads / shape_.num_kv_heads; }
  void reserve(const Batch& batch);
  void reserve_rows(int num_rows);
  void plan_attention(const Batch& batch);
  void run_layer(int number, const Batch& batch, Memory memory, int thread);
  void embed(const Batch& batch, int thread);
  Operand prepare(const float* x, const float* norm, const Matrix& matrix, int num_rows, int thread);
  void multiply(const Operand& x, const Matrix& matrix, Epilogue epilogue, float* y, int stride, int thread);
  void rotate_and_store(int number, const Batch& batch, Memory memory, int thread);
  void rotate(const float* norm, float* head, int position, float scale) const;
  void attend(int number, Memory memory, int thread);
  void attend_task(const AttentionTask& task, int number, Memory memory, Workspace& workspace);
  template <class Number>
  HeadMemory<Number> head_memory(Memory memory, int layer, int kv_head) const;

  const Shape shape_;
  const std::vector<Layer> layers_;
  const Matrix output_;
  const Weights weights_;
  const Kernel& kernel_;
  Team team_;
  Tasks tasks_;       // of the running phase
  std::mutex mutex_;  // one step at a time

  // Of the running step.
  std::vector<AttentionTask> attention_;
  std::vector<std::int32_t> slot_of_row_;
  Buffer<float> x_;                                     // (rows, hidden_size): the residual stream
  Buffer<float> wide_;                                  // (rows, the widest product)
  Buffer<float> attended_;                              // (rows, num_heads * head_dim)
  Buffer<float> normed_;                                // (rows, the widest input)
  Buffer<std::int8_t> inputs_;                          // (rows, 2 bytes or passes, the widest input)
  Buffer<float> scales_;                                // (rows,)
  std::vector<std::unique_ptr<Workspace>> workspaces_;  // of each thread
};

}  // namespace qwen_aio
