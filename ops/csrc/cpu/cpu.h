// What the CPU kernels share.
#pragma once

#include "../common.h"

#include <cmath>

// A function marked so is compiled for several instruction sets, and the best one of the machine is picked when the
// library loads: a build made on one machine runs on every other of its architecture. Contraction to fused
// multiply-add is off (setup.py), so all of them give the same numbers.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(SDK_SANITIZE)
#define SDK_SIMD __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SDK_SIMD
#endif

namespace sdk {

using torch::stable::parallel_for;

// Iterations that are worth a thread of their own when one iteration costs `operations` simple operations.
inline int64_t grain(int64_t operations) {
  constexpr int64_t OPERATIONS_PER_THREAD = 1 << 18;
  return operations >= OPERATIONS_PER_THREAD ? 1 : OPERATIONS_PER_THREAD / (operations > 0 ? operations : 1);
}

template <typename T>
void check_no_nan(const char* name, const Tensor& tensor) {
  const T* values = input_data<T>(tensor);
  bool found = false;
  for (int64_t i = 0, n = tensor.numel(); i < n; ++i) {
    const Wide<T> value = static_cast<Wide<T>>(values[i]);
    found |= value != value;
  }
  check(!found, name, ": expected no NaN");
}

template <typename T>
void check_finite(const char* name, const Tensor& tensor) {
  const T* values = input_data<T>(tensor);
  bool found = false;
  for (int64_t i = 0, n = tensor.numel(); i < n; ++i) {
    found |= !std::isfinite(static_cast<Wide<T>>(values[i]));
  }
  check(!found, name, ": expected finite numbers");
}

}  // namespace sdk
