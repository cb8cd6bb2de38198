// remote NUM_POSITIONS: the functions of native/interface.h for another process, which remote.py is in. So the library
// for another processor computes in an emulator what tests ask of it. NUM_POSITIONS: of the rotations of every model.
//
// Lines come in, a function and its arguments, and go out, "done" and the result. Pointers are the caller's: with
// "read ADDRESS SIZE", bytes of its memory come in, with "write ADDRESS SIZE" they go out. Both sides lay out memory
// alike.
#include <cstdlib>
#include <deque>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "interface.h"

namespace {

using namespace qwen_aio;

using Address = std::uintptr_t;  // in the caller's memory

int num_positions;

template <class Number>
void read(const Number* from, std::size_t count, Number* to) {
  std::cout << "read " << reinterpret_cast<Address>(from) << ' ' << count * sizeof(Number) << std::endl;
  if (!std::cin.read(reinterpret_cast<char*>(to), static_cast<std::streamsize>(count * sizeof(Number)))) std::exit(1);
}

template <class Number>
void write(const Number* from, std::size_t count, Number* to) {
  std::cout << "write " << reinterpret_cast<Address>(to) << ' ' << count * sizeof(Number) << std::endl;
  std::cout.write(reinterpret_cast<const char*>(from), static_cast<std::streamsize>(count * sizeof(Number)));
}

template <class Number>
std::vector<Number> copied(const Number* from, std::size_t count) {
  std::vector<Number> numbers(count);
  if (count > 0) read(from, count, numbers.data());
  return numbers;
}

// Weights of the caller, copied, and the model over them.
class Remote {
 public:
  Remote(Address address, const std::string& kernel, int num_threads) {
    read(reinterpret_cast<const Weights*>(address), 1, &weights_);
    const Shape& shape = weights_.shape;
    layers_ = copied(weights_.layers, shape.num_layers);
    weights_.layers = layers_.data();
    for (Layer& layer : layers_) {
      for (Matrix* matrix : {&layer.qkv, &layer.attention_output, &layer.gate_up, &layer.down}) fetch(*matrix);
      for (const float** norm : {&layer.attention_norm, &layer.mlp_norm}) fetch(*norm, shape.hidden_size);
      for (const float** norm : {&layer.query_norm, &layer.key_norm}) fetch(*norm, shape.head_dim);
    }
    fetch(weights_.embedding);
    fetch(weights_.output);
    fetch(weights_.norm, shape.hidden_size);
    for (const float** angles : {&weights_.cosines, &weights_.sines})
      fetch(*angles, static_cast<std::size_t>(num_positions) * (shape.head_dim / 2));
    model_ = qwen_aio_new(&weights_, kernel.c_str(), num_threads);
  }
  ~Remote() { qwen_aio_delete(model_); }
  Remote(const Remote&) = delete;
  Remote& operator=(const Remote&) = delete;

  bool forward(Address batch_address, Address memory_address, Address states_address) {
    Batch batch;
    read(reinterpret_cast<const Batch*>(batch_address), 1, &batch);
    Memory memory;
    read(reinterpret_cast<const Memory*>(memory_address), 1, &memory);
    const std::vector<std::int32_t> ids = copied(batch.ids, batch.num_rows);
    const std::vector<std::int32_t> positions = copied(batch.positions, batch.num_rows);
    const std::vector<std::int32_t> wanted = copied(batch.wanted, batch.num_wanted);
    std::vector<Span> spans = copied(batch.spans, batch.num_spans);
    std::deque<std::vector<std::int32_t>> slots;
    for (Span& span : spans)
      span.slots = slots.emplace_back(copied(span.slots, span.num_before + span.num_rows)).data();
    const Batch own{batch.num_rows, ids.data(),       positions.data(), batch.num_spans,
                    spans.data(),   batch.num_wanted, wanted.data()};
    const Shape& shape = weights_.shape;
    const std::size_t numbers = std::size_t(shape.num_layers) * 2 * shape.num_kv_heads * shape.head_dim;
    char* caller_memory = static_cast<char*>(memory.numbers);
    std::vector<char> bytes = copied(caller_memory, numbers * memory.num_slots * (memory.is_half ? 2 : 4));
    memory.numbers = bytes.data();
    std::vector<float> states(std::size_t(batch.num_wanted) * shape.hidden_size);
    if (!qwen_aio_forward(model_, &own, &memory, states.data())) return false;
    write(bytes.data(), bytes.size(), caller_memory);
    write(states.data(), states.size(), reinterpret_cast<float*>(states_address));
    return true;
  }

  bool logits(Address states_address, int num_rows, int first_column, int num_columns, Address logits_address) {
    const std::vector<float> states =
        copied(reinterpret_cast<const float*>(states_address), std::size_t(num_rows) * weights_.shape.hidden_size);
    std::vector<float> result(std::size_t(num_rows) * num_columns);
    if (!qwen_aio_logits(model_, states.data(), num_rows, first_column, num_columns, result.data())) return false;
    write(result.data(), result.size(), reinterpret_cast<float*>(logits_address));
    return true;
  }

 private:
  // What `numbers` points to, if anything, in our memory.
  template <class Number>
  void fetch(const Number*& numbers, std::size_t count) {
    if (numbers == nullptr) return;
    std::vector<char>& bytes = memory_.emplace_back(count * sizeof(Number));
    read(numbers, count, reinterpret_cast<Number*>(bytes.data()));
    numbers = reinterpret_cast<const Number*>(bytes.data());
  }

  void fetch(Matrix& matrix) {
    const std::size_t size = static_cast<std::size_t>(matrix.num_columns) * matrix.num_inputs;
    fetch(matrix.floats, size);
    fetch(matrix.int8s, size);
    const std::size_t num_factors = static_cast<std::size_t>(matrix.num_columns) * matrix.num_groups();
    fetch(matrix.int4s, num_factors * GROUP / 2);
    fetch(matrix.factors, num_factors);
    fetch(matrix.scales, matrix.num_columns);
    fetch(matrix.sums, matrix.num_columns);
    fetch(matrix.bias, matrix.num_columns);
  }

  Weights weights_{};
  std::vector<Layer> layers_;
  std::deque<std::vector<char>> memory_;
  Model* model_ = nullptr;
};

// The result of one call.
std::string call(const std::string& line) {
  std::istringstream words(line);
  std::string function, kernel;
  Address first = 0, second = 0, third = 0, fourth = 0;
  words >> function;
  if (function == "kernel") {
    words >> kernel;
    const char* name = qwen_aio_kernel(kernel.c_str());
    return name == nullptr ? "" : name;
  }
  if (function == "together") {
    words >> kernel;
    return std::to_string(qwen_aio_together(kernel.c_str()));
  }
  if (function == "layout") {
    words >> first;
    return std::to_string(qwen_aio_layout()[first]);
  }
  if (function == "new") {
    words >> first >> kernel >> second;
    return std::to_string(reinterpret_cast<Address>(new Remote(first, kernel, static_cast<int>(second))));
  }
  words >> first;
  Remote* remote = reinterpret_cast<Remote*>(first);
  if (function == "forward") {
    words >> second >> third >> fourth;
    return std::to_string(remote->forward(second, third, fourth));
  }
  if (function == "logits") {
    int num_rows = 0, first_column = 0, num_columns = 0;
    words >> second >> num_rows >> first_column >> num_columns >> third;
    return std::to_string(remote->logits(second, num_rows, first_column, num_columns, third));
  }
  delete remote;
  return "0";
}

}  // namespace

int main(int, char** arguments) {
  num_positions = std::atoi(arguments[1]);
  for (std::string line; std::getline(std::cin, line);) {
    const std::string result = call(line);  // which writes, too
    std::cout << "done " << result << std::endl;
  }
  return 0;
}
