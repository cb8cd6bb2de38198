#include "simd_avx2.h"
// clang-format off: each header needs those before it
#include "int8_avx2.h"
#include "int4_avx2.h"
#include "rows.h"
#include "products.h"
#include "attention.h"
// clang-format on

namespace qwen_aio {

const Kernel avx2_kernel = {
    "avx2",   TOGETHER, sizeof(Input),     sizeof(GroupInputs), normalise,     quantise,     quantise_groups,
    multiply, rotate,   store_head<float>, store_head<half>,    attend<float>, attend<half>,
};

}  // namespace qwen_aio
