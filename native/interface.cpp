#include "interface.h"

#include <new>
#include <system_error>

namespace {

// False if `work` lacked memory or threads.
template <class Work>
bool succeeds(Work work) {
  try {
    work();
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  } catch (const std::system_error&) {
    return false;
  }
}

}  // namespace

const char* qwen_aio_kernel(const char* name) {
  const qwen_aio::Kernel* kernel = qwen_aio::choose_kernel(name);
  return kernel != nullptr ? kernel->name : nullptr;
}

int qwen_aio_together(const char* kernel) { return qwen_aio::choose_kernel(kernel)->together; }

const int* qwen_aio_layout() {
  using namespace qwen_aio;
  static const int layout[] = {PANEL,           SLOTS,        sizeof(Shape), sizeof(Matrix), sizeof(Layer),
                               sizeof(Weights), sizeof(Span), sizeof(Batch), sizeof(Memory)};
  return layout;
}

qwen_aio::Model* qwen_aio_new(const qwen_aio::Weights* weights, const char* kernel, int num_threads) {
  const qwen_aio::Kernel* chosen = qwen_aio::choose_kernel(kernel);
  qwen_aio::Model* model = nullptr;
  if (chosen != nullptr) succeeds([&] { model = new qwen_aio::Model(*weights, *chosen, num_threads); });
  return model;
}

void qwen_aio_delete(qwen_aio::Model* model) { delete model; }

bool qwen_aio_forward(qwen_aio::Model* model, const qwen_aio::Batch* batch, const qwen_aio::Memory* memory,
                      float* states) {
  return succeeds([&] { model->forward(*batch, *memory, states); });
}

bool qwen_aio_logits(qwen_aio::Model* model, const float* states, int num_rows, int first_column, int num_columns,
                     float* logits) {
  return succeeds([&] { model->logits(states, num_rows, first_column, num_columns, logits); });
}
