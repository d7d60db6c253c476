// Argument checks and sizes of CARAFE, for the CPU and CUDA kernels.
#pragma once

#include "common.h"

namespace sdk {

// Shape letters: B images, C channels, H x W pixels, s scale, k kernel size, r = k / 2, G groups.
struct CarafeSizes {
  int64_t batch, channels, height, width, kernel, groups, scale, radius, out_height, out_width, per_group;

  CarafeSizes(
      const Tensor& features, const Tensor& masks, int64_t kernel_size, int64_t group_count, int64_t scale_factor)
      : kernel(kernel_size), groups(group_count), scale(scale_factor), radius(kernel_size / 2) {
    constexpr int64_t LARGEST = 1 << 15;  // keeps products inside 64 bits
    check_shape("features", features, {ANY, ANY, ANY, ANY});
    check_floating("features", features);
    check_like("masks", masks, features);
    check(
        kernel > 0 && kernel % 2 == 1 && kernel < LARGEST,
        "kernel_size: expected an odd number above 0, found ",
        kernel);
    check(scale > 0 && scale < LARGEST, "scale_factor: expected a number above 0, found ", scale);
    check(groups > 0 && groups < LARGEST, "groups: expected a number above 0, found ", groups);
    batch = features.size(0), channels = features.size(1), height = features.size(2), width = features.size(3);
    check(channels % groups == 0, "features: expected channels in ", groups, " equal groups, found ", channels);
    out_height = height * scale;
    out_width = width * scale;
    per_group = channels / groups;
    check_shape("masks", masks, {batch, groups * kernel * kernel, out_height, out_width});
  }

  void check_grad(const Tensor& grad, const Tensor& features) const {
    check_shape("grad", grad, {batch, channels, out_height, out_width});
    check_like("grad", grad, features);
  }
};

}  // namespace sdk
