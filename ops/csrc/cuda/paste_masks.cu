#include "../paste_masks.h"
#include "cuda.cuh"

// One thread a pixel. The order of the operations is that of grid_sample on CUDA. Encoding runs on the CPU.

namespace sdk {
namespace {

// The position of a pixel centre between the cells of a mask, as grid_sample sees it.
template <typename W>
__device__ W position(int64_t pixel, W low, W high, int64_t cells) {
  const W normal = (static_cast<W>(pixel) + W(0.5) - low) / (high - low) * W(2) - W(1);
  return ((normal + W(1)) * static_cast<W>(cells) - W(1)) / W(2);
}

template <typename T>
__global__ void paste(
    const T* masks,
    const T* boxes,
    int64_t count,
    int64_t cells_y,
    int64_t cells_x,
    int64_t height,
    int64_t width,
    Wide<T> threshold,
    bool* out) {
  using W = Wide<T>;
  SDK_FOR_EACH(i, count * height * width) {
    const int64_t n = i / width / height;
    const W x0 = static_cast<W>(boxes[4 * n]), y0 = static_cast<W>(boxes[4 * n + 1]);
    const W x1 = static_cast<W>(boxes[4 * n + 2]), y1 = static_cast<W>(boxes[4 * n + 3]);
    bool set = false;
    if (x1 > x0 && y1 > y0) {
      const W x = position(i % width, x0, x1, cells_x), y = position(i / width % height, y0, y1, cells_y);
      if (x > W(-1) && y > W(-1) && x < static_cast<W>(cells_x) && y < static_cast<W>(cells_y)) {
        const W left = floor(x), top = floor(y), dx = x - left, dy = y - top;
        W value = 0;
        for (int k = 0; k < 4; ++k) {
          const int64_t column = static_cast<int64_t>(left) + k % 2, row = static_cast<int64_t>(top) + k / 2;
          if (column >= 0 && column < cells_x && row >= 0 && row < cells_y) {
            const W share = (k % 2 ? dx : left + W(1) - x) * (k / 2 ? dy : top + W(1) - y);
            value += static_cast<W>(masks[(n * cells_y + row) * cells_x + column]) * share;
          }
        }
        set = value >= threshold;
      }
    }
    out[i] = set;
  }
}

Tensor paste_masks(const Tensor& masks, const Tensor& boxes, int64_t height, int64_t width, double threshold) {
  check_paste_arguments(masks, boxes, height, width, threshold);
  const OnDevice device(masks);
  const Tensor masks_in = packed(masks), boxes_in = packed(boxes);
  const Tensor out = empty(masks, {masks.size(0), height, width}, ScalarType::Bool);
  if (out.numel() == 0) {
    return out;
  }
  for_floating(masks.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    paste<<<blocks_for(out.numel()), THREADS, 0, device.stream>>>(
        input_data<T>(masks_in),
        input_data<T>(boxes_in),
        masks.size(0),
        masks.size(1),
        masks.size(2),
        height,
        width,
        static_cast<Wide<T>>(threshold),
        output_data<bool>(out));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CUDA, m) {
  m.impl("paste_masks", TORCH_BOX(&sdk::paste_masks));
}
