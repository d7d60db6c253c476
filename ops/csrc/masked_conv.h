// Argument checks and sizes of the masked convolution, for the CPU and CUDA kernels.
#pragma once

#include "common.h"

#include <vector>

namespace sdk {

// Shape letters: B images, C channels in, O channels out, H x W pixels in, h x w pixels out, KH x KW kernel.
struct MaskedConvSizes {
  int64_t batch, channels, height, width, outputs, kernel_height, kernel_width, pad_y, pad_x, step_y, step_x;
  int64_t out_height, out_width, masks, taps;

  MaskedConvSizes(
      const Tensor& x,
      const Tensor& mask,
      const Tensor& weight,
      const std::optional<Tensor>& bias,
      const std::vector<int64_t>& padding,
      const std::vector<int64_t>& stride) {
    constexpr int64_t LARGEST = int64_t{1} << 31;  // keeps sums and products inside 64 bits
    check_shape("x", x, {ANY, ANY, ANY, ANY});
    check_floating("x", x);
    check_shape("weight", weight, {ANY, x.size(1), ANY, ANY});
    check_like("weight", weight, x);
    batch = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
    outputs = weight.size(0), kernel_height = weight.size(2), kernel_width = weight.size(3);
    if (bias) {
      check_shape("bias", *bias, {outputs});
      check_like("bias", *bias, x);
    }
    check(padding.size() == 2 && stride.size() == 2, "padding and stride: expected two numbers each");
    pad_y = padding[0], pad_x = padding[1], step_y = stride[0], step_x = stride[1];
    check(
        pad_y >= 0 && pad_x >= 0 && pad_y < LARGEST && pad_x < LARGEST,
        "padding: expected numbers of at least 0, found ",
        pad_y,
        " and ",
        pad_x);
    check(
        step_y >= 1 && step_x >= 1 && step_y < LARGEST && step_x < LARGEST,
        "stride: expected numbers of at least 1, found ",
        step_y,
        " and ",
        step_x);
    check(kernel_height >= 1 && kernel_width >= 1, "weight: expected a kernel of at least 1 x 1");
    const int64_t room_y = height + 2 * pad_y - kernel_height, room_x = width + 2 * pad_x - kernel_width;
    check(room_y >= 0 && room_x >= 0, "weight: expected a kernel that fits into the padded input");
    out_height = room_y / step_y + 1;
    out_width = room_x / step_x + 1;
    check(mask.scalar_type() == ScalarType::Bool, "mask: expected bool");
    check_device("mask", mask, x);
    masks = mask.dim() > 0 && mask.size(0) == 1 ? 1 : batch;
    check_shape("mask", mask, {masks, out_height, out_width});
    taps = channels * kernel_height * kernel_width;
  }
};

}  // namespace sdk
