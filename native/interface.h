// What Python calls, through ctypes. Structures are those of model.h, in the layout of C.
//
// Nothing here throws: a function returns null or false where memory or threads are lacking.
#pragma once

#include "model.h"

#if defined(_WIN32)
#define QWEN_AIO_EXPORT extern "C" __declspec(dllexport)
#else
#define QWEN_AIO_EXPORT extern "C" __attribute__((visibility("default")))
#endif

// The kernel that runs if `name` is asked for ("": the best); null if this processor has none of that name.
QWEN_AIO_EXPORT const char* qwen_aio_kernel(const char* name);

// Inputs whose int8 weights are neighbours for the kernel of that name, which runs here.
QWEN_AIO_EXPORT int qwen_aio_together(const char* kernel);

// Sizes of the structures that Python fills, in the order of `layout` in interface.cpp: of another build, they differ.
QWEN_AIO_EXPORT const int* qwen_aio_layout();

// A model over `weights`, which must outlive it.
QWEN_AIO_EXPORT qwen_aio::Model* qwen_aio_new(const qwen_aio::Weights* weights, const char* kernel, int num_threads);
QWEN_AIO_EXPORT void qwen_aio_delete(qwen_aio::Model* model);

// See Model::forward and Model::logits.
QWEN_AIO_EXPORT bool qwen_aio_forward(qwen_aio::Model* model, const qwen_aio::Batch* batch,
                                      const qwen_aio::Memory* memory, float* states);
QWEN_AIO_EXPORT bool qwen_aio_logits(qwen_aio::Model* model, const float* states, int num_rows, int first_column,
                                     int num_columns, float* logits);
