// Argument checks of CARAFE, for the CPU and CUDA kernels.
#pragma once

#include "common.h"

namespace sdk {

inline void check_carafe_arguments(
    const Tensor& features, const Tensor& masks, int64_t kernel_size, int64_t groups, int64_t scale) {
  constexpr int64_t LARGEST = 1 << 15;  // keeps products inside 64 bits
  check_shape("features", features, {ANY, ANY, ANY, ANY});
  check_floating("features", features);
  check_like("masks", masks, features);
  check(
      kernel_size > 0 && kernel_size % 2 == 1 && kernel_size < LARGEST,
      "kernel_size: expected an odd number above 0, found ",
      kernel_size);
  check(scale > 0 && scale < LARGEST, "scale_factor: expected a number above 0, found ", scale);
  check(groups > 0 && groups < LARGEST, "groups: expected a number above 0, found ", groups);
  check(
      features.size(1) % groups == 0,
      "features: expected channels in ",
      groups,
      " equal groups, found ",
      features.size(1));
  check_shape(
      "masks",
      masks,
      {features.size(0), groups * kernel_size * kernel_size, features.size(2) * scale, features.size(3) * scale});
}

}  // namespace sdk
