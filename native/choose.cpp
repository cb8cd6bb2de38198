// The one place that decides which kernel runs.
#include <cstring>

#include "kernel.h"

namespace qwen_aio {
namespace {

struct Candidate {
  const Kernel& kernel;
  bool runs_here;
};

}  // namespace

const Kernel* choose_kernel(const char* name) {
  const Candidate candidates[] = {
#if defined(__x86_64__) || defined(_M_X64)
      {avx512_kernel, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("f16c")},
      {avx2_kernel, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")},
#endif
      {plain_kernel, true},
  };
  for (const Candidate& candidate : candidates)
    if (candidate.runs_here && (*name == '\0' || std::strcmp(name, candidate.kernel.name) == 0))
      return &candidate.kernel;
  return nullptr;
}

}  // namespace qwen_aio
