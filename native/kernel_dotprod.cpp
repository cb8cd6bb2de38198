#include "simd_neon.h"
// clang-format off: each header needs those before it
#include "int8_dotprod.h"
#include "int4_plain.h"
#include "rows.h"
#include "products.h"
#include "attention.h"
// clang-format on

namespace qwen_aio {

const Kernel dotprod_kernel = {
    "dotprod", TOGETHER, sizeof(Input),     sizeof(GroupInputs), normalise,     quantise,     quantise_groups,
    multiply,  rotate,   store_head<float>, store_head<half>,    attend<float>, attend<half>,
};

}  // namespace qwen_aio
