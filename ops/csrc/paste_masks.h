// Argument checks of mask pasting, for the CPU and CUDA kernels.
#pragma once

#include "common.h"

namespace sdk {

inline void check_paste_arguments(
    const Tensor& masks, const Tensor& boxes, int64_t height, int64_t width, double threshold) {
  check_shape("masks", masks, {ANY, ANY, ANY});
  check_floating("masks", masks);
  check_shape("boxes", boxes, {masks.size(0), 4});
  check_like("boxes", boxes, masks);
  constexpr int64_t LARGEST = int64_t{1} << 31;  // COCO run lengths are 32 bits wide
  check(
      height >= 0 && width >= 0 && height < LARGEST && width < LARGEST && (width == 0 || height < LARGEST / width),
      "size: expected at least 0 and less than 2^31 pixels, found ",
      height,
      " x ",
      width);
  check_number("threshold", threshold, threshold > 0, "a number above 0");
  check(masks.size(0) == 0 || masks.numel() > 0, "masks: expected at least one pixel a mask");
}

}  // namespace sdk
