// Stands in for native/choose.cpp: the emulated kernel runs on any processor.
#include "kernel.h"

namespace qwen_aio {

const Kernel* choose_kernel(const char*) { return &avx512_kernel; }

}  // namespace qwen_aio
