#include "../carafe.h"
#include "cuda.cuh"

// Shape letters: B images, C channels, H x W pixels, s scale, k kernel size, r = k / 2, G groups.
//
// All three kernels gather: one thread computes one value, in a fixed order.

namespace sdk {
namespace {

template <typename T>
__global__ void reassemble(const T* features, const T* masks, CarafeSizes s, T* out) {
  using W = Wide<T>;
  SDK_FOR_EACH(i, s.batch * s.channels * s.out_height * s.out_width) {
    const int64_t ox = i % s.out_width, oy = i / s.out_width % s.out_height, plane = i / s.out_width / s.out_height;
    const int64_t group = plane / s.per_group;  // over all images
    W sum = 0;
    for (int64_t tap = 0; tap < s.kernel * s.kernel; ++tap) {
      const int64_t y = oy / s.scale + tap / s.kernel - s.radius, x = ox / s.scale + tap % s.kernel - s.radius;
      if (y >= 0 && y < s.height && x >= 0 && x < s.width) {
        const int64_t mask = ((group * s.kernel * s.kernel + tap) * s.out_height + oy) * s.out_width + ox;
        sum += static_cast<W>(masks[mask]) * static_cast<W>(features[(plane * s.height + y) * s.width + x]);
      }
    }
    out[i] = static_cast<T>(sum);
  }
}

template <typename T>
__global__ void features_backward(const T* grad, const T* masks, CarafeSizes s, T* out) {
  using W = Wide<T>;
  SDK_FOR_EACH(i, s.batch * s.channels * s.height * s.width) {
    const int64_t x = i % s.width, y = i / s.width % s.height, plane = i / s.width / s.height;
    const int64_t group = plane / s.per_group;
    W sum = 0;
    for (int64_t tap = 0; tap < s.kernel * s.kernel; ++tap) {
      // The source pixel whose window holds this one at `tap`.
      const int64_t sy = y - tap / s.kernel + s.radius, sx = x - tap % s.kernel + s.radius;
      if (sy < 0 || sy >= s.height || sx < 0 || sx >= s.width) {
        continue;
      }
      for (int64_t oy = sy * s.scale; oy < (sy + 1) * s.scale; ++oy) {
        for (int64_t ox = sx * s.scale; ox < (sx + 1) * s.scale; ++ox) {
          const int64_t mask = ((group * s.kernel * s.kernel + tap) * s.out_height + oy) * s.out_width + ox;
          sum += static_cast<W>(masks[mask]) *
              static_cast<W>(grad[(plane * s.out_height + oy) * s.out_width + ox]);
        }
      }
    }
    out[i] = static_cast<T>(sum);
  }
}

template <typename T>
__global__ void masks_backward(const T* grad, const T* features, CarafeSizes s, T* out) {
  using W = Wide<T>;
  const int64_t taps = s.kernel * s.kernel;
  SDK_FOR_EACH(i, s.batch * s.groups * taps * s.out_height * s.out_width) {
    const int64_t ox = i % s.out_width, oy = i / s.out_width % s.out_height;
    const int64_t tap = i / s.out_width / s.out_height % taps, group = i / s.out_width / s.out_height / taps;
    const int64_t y = oy / s.scale + tap / s.kernel - s.radius, x = ox / s.scale + tap % s.kernel - s.radius;
    W sum = 0;
    if (y >= 0 && y < s.height && x >= 0 && x < s.width) {
      for (int64_t c = group * s.per_group; c < (group + 1) * s.per_group; ++c) {
        sum += static_cast<W>(features[(c * s.height + y) * s.width + x]) *
            static_cast<W>(grad[(c * s.out_height + oy) * s.out_width + ox]);
      }
    }
    out[i] = static_cast<T>(sum);
  }
}

Tensor carafe(const Tensor& features, const Tensor& masks, int64_t kernel_size, int64_t groups, int64_t scale) {
  const OnDevice device(features);
  const CarafeSizes s(features, masks, kernel_size, groups, scale);
  const Tensor features_in = packed(features), masks_in = packed(masks);
  const Tensor out = empty(features, {s.batch, s.channels, s.out_height, s.out_width});
  if (out.numel() == 0) {
    return out;
  }
  for_floating(features.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    reassemble<<<blocks_for(out.numel()), THREADS, 0, device.stream>>>(
        input_data<T>(features_in), input_data<T>(masks_in), s, output_data<T>(out));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

std::tuple<Tensor, Tensor> carafe_backward(
    const Tensor& grad,
    const Tensor& features,
    const Tensor& masks,
    int64_t kernel_size,
    int64_t groups,
    int64_t scale) {
  const CarafeSizes s(features, masks, kernel_size, groups, scale);
  s.check_grad(grad, features);
  const OnDevice device(features);
  const Tensor grad_in = packed(grad), features_in = packed(features), masks_in = packed(masks);
  const Tensor by_features = zeros(features, {s.batch, s.channels, s.height, s.width});
  const Tensor by_masks = zeros(masks, {s.batch, groups * kernel_size * kernel_size, s.out_height, s.out_width});
  if (grad.numel() == 0) {
    return {by_features, by_masks};
  }
  for_floating(features.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    features_backward<<<blocks_for(by_features.numel()), THREADS, 0, device.stream>>>(
        input_data<T>(grad_in), input_data<T>(masks_in), s, output_data<T>(by_features));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    masks_backward<<<blocks_for(by_masks.numel()), THREADS, 0, device.stream>>>(
        input_data<T>(grad_in), input_data<T>(features_in), s, output_data<T>(by_masks));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {by_features, by_masks};
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CUDA, m) {
  m.impl("carafe", TORCH_BOX(&sdk::carafe));
  m.impl("carafe_backward", TORCH_BOX(&sdk::carafe_backward));
}
