#include "model.h"

#include <algorithm>
#include <cmath>

namespace qwen_aio {
namespace {

constexpr int QUERIES_OF_TASK = 48;  // of attention: enough to share what is read, few enough to share out

// The thread's part of `count` things.
int share_start(int count, int thread, int size) {
  return static_cast<int>(static_cast<std::int64_t>(count) * thread / size);
}

// Row `column` of the transposed matrix, (num_inputs,); of int8 weights, `together` are neighbours.
void read_column(const Matrix& matrix, int together, int column, float* y) {
  const int size = matrix.num_inputs, lane = column % PANEL;
  const std::size_t start = static_cast<std::size_t>(column / PANEL) * PANEL * size;
  if (matrix.floats != nullptr) {
    for (int i = 0; i < size; ++i) y[i] = matrix.floats[start + static_cast<std::size_t>(i) * PANEL + lane];
    return;
  }
  for (int i = 0; i < size; i += together) {
    const std::int8_t* weights = matrix.int8s + start + static_cast<std::size_t>(i) * PANEL + lane * together;
    for (int part = 0; part < together; ++part) y[i + part] = matrix.scales[column] * static_cast<float>(weights[part]);
  }
}

// As this kernel computes it: inputs of two bytes get one pass.
Matrix adapted(Matrix matrix, const Kernel& kernel) {
  if (kernel.input_bytes > 1) matrix.num_passes = 1;
  return matrix;
}

std::vector<Layer> adapted(const Layer* layers, int count, const Kernel& kernel) {
  std::vector<Layer> result(layers, layers + count);
  for (Layer& layer : result)
    for (Matrix* matrix : {&layer.qkv, &layer.attention_output, &layer.gate_up, &layer.down})
      *matrix = adapted(*matrix, kernel);
  return result;
}

}  // namespace

Model::Model(const Weights& weights, const Kernel& kernel, int num_threads)
    : shape_(weights.shape),
      layers_(adapted(weights.layers, weights.shape.num_layers, kernel)),
      output_(adapted(weights.output, kernel)),
      weights_(weights),
      kernel_(kernel),
      team_(num_threads),
      tasks_(num_threads) {
  for (int thread = 0; thread < num_threads; ++thread) workspaces_.push_back(std::make_unique<Workspace>());
}

int Model::qkv_size() const {
  const int size = (shape_.num_heads + 2 * shape_.num_kv_heads) * shape_.head_dim;
  return (size + PANEL - 1) / PANEL * PANEL;
}

void Model::forward(const Batch& batch, Memory memory, float* states) {
  const std::lock_guard<std::mutex> lock(mutex_);
  reserve(batch);
  plan_attention(batch);
  team_.run([&](int thread) {
    embed(batch, thread);
    team_.barrier();
    for (int number = 0; number < shape_.num_layers; ++number) run_layer(number, batch, memory, thread);
    const int size = shape_.hidden_size;
    for (int i = thread; i < batch.num_wanted; i += team_.size()) {
      const float* x = x_.get() + static_cast<std::size_t>(batch.wanted[i]) * size;
      kernel_.normalise(x, weights_.norm, shape_.rms_norm_eps, size, states + static_cast<std::size_t>(i) * size);
    }
  });
}

void Model::logits(const float* states, int num_rows, int first_column, int num_columns, float* logits) {
  const std::lock_guard<std::mutex> lock(mutex_);
  reserve_rows(num_rows);
  const Matrix columns = output_.columns(first_column, num_columns);
  team_.run([&](int thread) {
    const Operand x = prepare(states, nullptr, columns, num_rows, thread);
    multiply(x, columns, Epilogue::store, logits, num_columns, thread);
  });
}

void Model::reserve(const Batch& batch) {
  reserve_rows(batch.num_rows);
  slot_of_row_.resize(batch.num_rows);
  int longest = 0;
  for (int i = 0; i < batch.num_spans; ++i) {
    const Span& span = batch.spans[i];
    std::copy_n(span.slots + span.num_before, span.num_rows, slot_of_row_.begin() + span.first_row);
    longest = std::max(longest, span.num_before + span.num_rows);
  }
  for (auto& workspace : workspaces_) {
    workspace->scores.reserve(scratch_floats(longest));
    workspace->queries.resize(std::max(QUERIES_OF_TASK, group_size()));
  }
}

void Model::reserve_rows(int num_rows) {
  const std::size_t rows = num_rows;
  const int heads_size = shape_.num_heads * shape_.head_dim;
  const int widest_input = std::max({shape_.hidden_size, shape_.intermediate_size, heads_size});
  x_.reserve(rows * shape_.hidden_size);
  wide_.reserve(rows * std::max(qkv_size(), shape_.intermediate_size));
  attended_.reserve(rows * heads_size);
  normed_.reserve(rows * widest_input);
  inputs_.reserve(rows * 2 * widest_input);
  scales_.reserve(rows);
}

// Head by head, so that sequences side by side find a shared beginning in the processor's cache.
void Model::plan_attention(const Batch& batch) {
  const int rows_of_task = std::max(1, QUERIES_OF_TASK / group_size());
  attention_.clear();
  for (int kv_head = 0; kv_head < shape_.num_kv_heads; ++kv_head)
    for (int i = 0; i < batch.num_spans; ++i) {
      const Span& span = batch.spans[i];
      for (int row = 0; row < span.num_rows; row += rows_of_task)
        attention_.push_back({&span, row, std::min(rows_of_task, span.num_rows - row), kv_head});
    }
}

void Model::run_layer(int number, const Batch& batch, Memory memory, int thread) {
  const Layer& layer = layers_[number];
  const int num_rows = batch.num_rows, hidden_size = shape_.hidden_size;

  Operand input = prepare(x_.get(), layer.attention_norm, layer.qkv, num_rows, thread);
  multiply(input, layer.qkv, Epilogue::store, wide_.get(), qkv_size(), thread);
  rotate_and_store(number, batch, memory, thread);
  attend(number, memory, thread);
  input = prepare(attended_.get(), nullptr, layer.attention_output, num_rows, thread);
  multiply(input, layer.attention_output, Epilogue::add, x_.get(), hidden_size, thread);

  input = prepare(x_.get(), layer.mlp_norm, layer.gate_up, num_rows, thread);
  multiply(input, layer.gate_up, Epilogue::swiglu, wide_.get(), shape_.intermediate_size, thread);
  input = prepare(wide_.get(), nullptr, layer.down, num_rows, thread);
  multiply(input, layer.down, Epilogue::add, x_.get(), hidden_size, thread);
}

void Model::embed(const Batch& batch, int thread) {
  for (int row = thread; row < batch.num_rows; row += team_.size())
    read_column(weights_.embedding, kernel_.together, batch.ids[row],
                x_.get() + static_cast<std::size_t>(row) * shape_.hidden_size);
}

// The rows as `matrix` takes them, after the norm if there is one.
Operand Model::prepare(const float* x, const float* norm, const Matrix& matrix, int num_rows, int thread) {
  const int size = matrix.num_inputs, passes = matrix.num_passes, row_bytes = size * passes * kernel_.input_bytes;
  const bool is_int8 = matrix.int8s != nullptr;
  if (thread == 0) tasks_.reset(matrix.num_panels());
  for (int row = share_start(num_rows, thread, team_.size()); row < share_start(num_rows, thread + 1, team_.size());
       ++row) {
    const std::size_t start = static_cast<std::size_t>(row) * size;
    const float* input = x + start;
    if (norm != nullptr) {
      kernel_.normalise(input, norm, shape_.rms_norm_eps, size, normed_.get() + start);
      input = normed_.get() + start;
    }
    if (is_int8)
      kernel_.quantise(input, size, passes, inputs_.get() + std::size_t(row) * row_bytes, scales_.get() + row);
  }
  team_.barrier();
  if (is_int8) return {num_rows, nullptr, inputs_.get(), scales_.get()};
  return {num_rows, norm != nullptr ? normed_.get() : x, nullptr, nullptr};
}

void Model::multiply(const Operand& x, const Matrix& matrix, Epilogue epilogue, float* y, int stride, int thread) {
  for (int panel; (panel = tasks_.next(thread)) >= 0;) kernel_.multiply(x, matrix, panel, epilogue, y, stride);
  team_.barrier();
}

void Model::rotate_and_store(int number, const Batch& batch, Memory memory, int thread) {
  const Layer& layer = layers_[number];
  const int head_dim = shape_.head_dim, num_heads = shape_.num_heads, num_kv_heads = shape_.num_kv_heads;
  const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
  if (thread == 0) tasks_.reset(static_cast<int>(attention_.size()));
  for (int row = thread; row < batch.num_rows; row += team_.size()) {
    float* queries = wide_.get() + static_cast<std::size_t>(row) * qkv_size();
    float* keys = queries + num_heads * head_dim;
    const float* values = keys + num_kv_heads * head_dim;
    for (int head = 0; head < num_heads; ++head)
      rotate(layer.query_norm, queries + head * head_dim, batch.positions[row], scale);
    for (int head = 0; head < num_kv_heads; ++head) {
      float* key = keys + head * head_dim;
      rotate(layer.key_norm, key, batch.positions[row], 1.0F);
      if (memory.is_half)
        kernel_.store_halves(key, values + head * head_dim, head_dim, head_memory<half>(memory, number, head),
                             slot_of_row_[row]);
      else
        kernel_.store_floats(key, values + head * head_dim, head_dim, head_memory<float>(memory, number, head),
                             slot_of_row_[row]);
    }
  }
  team_.barrier();
}

void Model::rotate(const float* norm, float* head, int position, float scale) const {
  const int size = shape_.head_dim, start = position * (size / 2);
  if (norm != nullptr) kernel_.normalise(head, norm, shape_.rms_norm_eps, size, head);
  kernel_.rotate(head, size, {weights_.cosines + start, weights_.sines + start}, scale);
}

void Model::attend(int number, Memory memory, int thread) {
  for (int task; (task = tasks_.next(thread)) >= 0;)
    attend_task(attention_[task], number, memory, *workspaces_[thread]);
  team_.barrier();
}

void Model::attend_task(const AttentionTask& task, int number, Memory memory, Workspace& workspace) {
  const int head_dim = shape_.head_dim, group = group_size();
  int count = 0;
  for (int i = task.first_row; i < task.first_row + task.num_rows; ++i) {
    const std::size_t row = task.span->first_row + i;
    for (int head = task.kv_head * group; head < (task.kv_head + 1) * group; ++head)
      workspace.queries[count++] = {wide_.get() + row * qkv_size() + head * head_dim,
                                    attended_.get() + (row * shape_.num_heads + head) * head_dim,
                                    task.span->num_before + i + 1};
  }
  const Slots slots{task.span->slots, task.span->num_before + task.first_row + task.num_rows};
  const Query* queries = workspace.queries.data();
  float* scores = workspace.scores.get();
  if (memory.is_half)
    kernel_.attend_halves(queries, count, head_memory<half>(memory, number, task.kv_head), slots, head_dim, scores);
  else
    kernel_.attend_floats(queries, count, head_memory<float>(memory, number, task.kv_head), slots, head_dim, scores);
}

template <class Number>
HeadMemory<Number> Model::head_memory(Memory memory, int layer, int kv_head) const {
  const std::size_t size = static_cast<std::size_t>(memory.num_slots) * shape_.head_dim;
  Number* keys = static_cast<Number*>(memory.numbers) + size * (2 * shape_.num_kv_heads * layer + kv_head);
  return {keys, keys + size * shape_.num_kv_heads};
}

}  // namespace qwen_aio
