// Every half, and floats around the middle of each two, through NEON's conversions: as bits.h has them, or the exit
// status is 1.
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include "simd_neon.h"

using namespace qwen_aio;

namespace {

bool is_nan(half h) { return (h & 0x7fffU) > 0x7c00U; }

bool loads_as_in_bits() {
  for (unsigned first = 0; first < 0x10000U; first += 16) {
    half halves[16];
    float floats[16];
    for (unsigned i = 0; i < 16; ++i) halves[i] = static_cast<half>(first + i);
    store(floats, load(halves));
    for (int i = 0; i < 16; ++i) {
      const bool is_same = is_nan(halves[i]) ? std::isnan(floats[i]) : bits_of(floats[i]) == bits_of(wide(halves[i]));
      if (!is_same) return std::printf("half %04x is loaded as %a\n", halves[i], floats[i]), false;
    }
  }
  return true;
}

std::vector<float> floats_to_store() {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> floats{infinity, -infinity, std::numeric_limits<float>::quiet_NaN(), 1e-40F, -1e-40F, 1e30F};
  for (unsigned h = 0; h < 0x7c00U; ++h) {
    const float here = wide(static_cast<half>(h)), next = h == 0x7bffU ? 65536.0F : wide(static_cast<half>(h + 1));
    const float middle = (here + next) / 2;  // exact
    for (float x : {here, std::nextafter(middle, 0.0F), middle, std::nextafter(middle, infinity)}) {
      floats.push_back(x);
      floats.push_back(-x);
    }
  }
  while (floats.size() % 16 != 0) floats.push_back(0.0F);
  return floats;
}

bool stores_as_in_bits() {
  const std::vector<float> floats = floats_to_store();
  for (std::size_t first = 0; first < floats.size(); first += 16) {
    half halves[16];
    store(halves, load(floats.data() + first));
    for (int i = 0; i < 16; ++i) {
      const float x = floats[first + i];
      const bool is_same = std::isnan(x) ? is_nan(halves[i]) : halves[i] == narrow(x);
      if (!is_same) return std::printf("%a is stored as half %04x\n", x, halves[i]), false;
    }
  }
  return true;
}

}  // namespace

int main() { return loads_as_in_bits() && stores_as_in_bits() ? 0 : 1; }
