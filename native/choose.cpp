// The one place that decides which kernel runs.
#include <cstring>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include "kernel.h"

namespace qwen_aio {
namespace {

struct Candidate {
  const Kernel& kernel;
  bool runs_here;
};

#if defined(__aarch64__)
bool has_dot_products() {
#if defined(__ARM_FEATURE_DOTPROD)
  return true;  // the compiler takes them for granted
#elif defined(__linux__)
  constexpr unsigned long ASIMDDP = 1UL << 20;  // HWCAP_ASIMDDP, which older headers lack
  return (getauxval(AT_HWCAP) & ASIMDDP) != 0;
#else
  return false;
#endif
}
#endif

}  // namespace

const Kernel* choose_kernel(const char* name) {
  const Candidate candidates[] = {
#if defined(__x86_64__) || defined(_M_X64)
      {avx512_kernel, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("f16c")},
      {avx2_kernel, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")},
#endif
#if defined(__aarch64__)
      {dotprod_kernel, has_dot_products()},
#endif
      {plain_kernel, true},
  };
  for (const Candidate& candidate : candidates)
    if (candidate.runs_here && (*name == '\0' || std::strcmp(name, candidate.kernel.name) == 0))
      return &candidate.kernel;
  return nullptr;
}

}  // namespace qwen_aio
