#include "../deform_roi_pool.h"
#include "cuda.cuh"

// Shape letters: B images, C channels, H x W pixels of the feature map, K regions, P x Q bins of a region.

namespace sdk {
namespace {

// Calls `visit(y, x)` for every sample inside the map of bin `bin` of a region.
template <typename T, typename W, typename Visit>
__device__ void for_samples(
    const RoiGeometry<W>& roi, const T* offset, int64_t bin, const RoiPoolSizes& s, W gamma, const Visit& visit) {
  W x0 = roi.x + static_cast<W>(bin % s.columns) * roi.bin_width;
  W y0 = roi.y + static_cast<W>(bin / s.columns) * roi.bin_height;
  if (offset != nullptr) {
    x0 += gamma * roi.width * static_cast<W>(offset[bin]);
    y0 += gamma * roi.height * static_cast<W>(offset[s.rows * s.columns + bin]);
  }
  for (int64_t i = 0; i < roi.grid_height; ++i) {
    const AxisSample<W> y(
        y0 + (static_cast<W>(i) + W(0.5)) * roi.bin_height / static_cast<W>(roi.grid_height), s.height);
    if (!y.inside) {
      continue;
    }
    for (int64_t j = 0; j < roi.grid_width; ++j) {
      const AxisSample<W> x(
          x0 + (static_cast<W>(j) + W(0.5)) * roi.bin_width / static_cast<W>(roi.grid_width), s.width);
      if (x.inside) {
        visit(y, x);
      }
    }
  }
}

template <typename T>
__global__ void pool(
    const T* input, const T* rois, const T* offset, RoiPoolSizes s, Wide<T> scale, Wide<T> gamma, T* out) {
  using W = Wide<T>;
  const int64_t bins = s.rows * s.columns;
  SDK_FOR_EACH(i, s.regions * s.channels * bins) {
    const int64_t bin = i % bins, c = i / bins % s.channels, n = i / bins / s.channels;
    const RoiGeometry<W> roi(rois + 5 * n, s, scale);
    W sum = 0;
    if (roi.image >= 0) {
      const T* plane = input + (roi.image * s.channels + c) * s.height * s.width;
      for_samples(
          roi, offset ? offset + 2 * n * bins : offset, bin, s, gamma, [&](AxisSample<W> y, AxisSample<W> x) {
            const T* upper = plane + y.low * s.width;
            const T* lower = plane + y.high * s.width;
            const W dx = x.fraction, dy = y.fraction;
            const W top = (W(1) - dx) * static_cast<W>(upper[x.low]) + dx * static_cast<W>(upper[x.high]);
            const W bottom = (W(1) - dx) * static_cast<W>(lower[x.low]) + dx * static_cast<W>(lower[x.high]);
            sum += (W(1) - dy) * top + dy * bottom;
          });
    }
    out[i] = static_cast<T>(sum / roi.samples);
  }
}

template <typename T>
__global__ void pool_backward(
    const T* grad,
    const T* input,
    const T* rois,
    const T* offset,
    RoiPoolSizes s,
    Wide<T> scale,
    Wide<T> gamma,
    Wide<T>* by_input,
    Wide<T>* by_offset) {
  using W = Wide<T>;
  const int64_t bins = s.rows * s.columns;
  SDK_FOR_EACH(i, s.regions * s.channels * bins) {
    const int64_t bin = i % bins, c = i / bins % s.channels, n = i / bins / s.channels;
    const RoiGeometry<W> roi(rois + 5 * n, s, scale);
    if (roi.image < 0) {
      continue;
    }
    const int64_t start = (roi.image * s.channels + c) * s.height * s.width;
    const T* plane = input + start;
    W* target = by_input + start;
    const W factor = static_cast<W>(grad[i]) / roi.samples;
    W by_x = 0, by_y = 0;
    for_samples(roi, offset ? offset + 2 * n * bins : offset, bin, s, gamma, [&](AxisSample<W> y, AxisSample<W> x) {
      const int64_t corner[] = {
          y.low * s.width + x.low, y.low * s.width + x.high, y.high * s.width + x.low, y.high * s.width + x.high};
      const W dx = x.fraction, dy = y.fraction;
      atomicAdd(target + corner[0], factor * (W(1) - dy) * (W(1) - dx));
      atomicAdd(target + corner[1], factor * (W(1) - dy) * dx);
      atomicAdd(target + corner[2], factor * dy * (W(1) - dx));
      atomicAdd(target + corner[3], factor * dy * dx);
      const W v0 = static_cast<W>(plane[corner[0]]), v1 = static_cast<W>(plane[corner[1]]);
      const W v2 = static_cast<W>(plane[corner[2]]), v3 = static_cast<W>(plane[corner[3]]);
      by_x += x.slope * ((W(1) - dy) * (v1 - v0) + dy * (v3 - v2));
      by_y += y.slope * ((W(1) - dx) * (v2 - v0) + dx * (v3 - v1));
    });
    if (offset != nullptr) {
      atomicAdd(by_offset + 2 * n * bins + bin, factor * by_x * gamma * roi.width);
      atomicAdd(by_offset + (2 * n + 1) * bins + bin, factor * by_y * gamma * roi.height);
    }
  }
}

Tensor deform_roi_pool(
    const Tensor& input,
    const Tensor& rois,
    const std::optional<Tensor>& offset,
    int64_t output_height,
    int64_t output_width,
    double spatial_scale,
    int64_t sampling_ratio,
    double gamma) {
  const RoiPoolSizes s(input, rois, offset, output_height, output_width, spatial_scale, sampling_ratio, gamma);
  const OnDevice device(input);
  const Tensor input_in = packed(input), rois_in = packed(rois);
  const std::optional<Tensor> offset_in = packed(offset);
  const Tensor out = empty(input, {s.regions, s.channels, output_height, output_width});
  if (out.numel() == 0) {
    return out;
  }
  for_floating(input.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    pool<<<blocks_for(out.numel()), THREADS, 0, device.stream>>>(
        input_data<T>(input_in),
        input_data<T>(rois_in),
        offset_in ? input_data<T>(*offset_in) : nullptr,
        s,
        static_cast<Wide<T>>(spatial_scale),
        static_cast<Wide<T>>(gamma),
        output_data<T>(out));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

std::tuple<Tensor, Tensor> deform_roi_pool_backward(
    const Tensor& grad,
    const Tensor& input,
    const Tensor& rois,
    const std::optional<Tensor>& offset,
    int64_t output_height,
    int64_t output_width,
    double spatial_scale,
    int64_t sampling_ratio,
    double gamma) {
  const RoiPoolSizes s(input, rois, offset, output_height, output_width, spatial_scale, sampling_ratio, gamma);
  s.check_grad(grad, input);
  const OnDevice device(input);
  const Tensor grad_in = packed(grad), input_in = packed(input), rois_in = packed(rois);
  const std::optional<Tensor> offset_in = packed(offset);
  const ScalarType type = input.scalar_type();
  const Tensor by_input = zeros(input, {s.batch, s.channels, s.height, s.width}, wide_type(type));
  const Tensor by_offset = zeros(input, {offset ? s.regions : 0, 2, output_height, output_width}, wide_type(type));
  if (grad.numel() > 0) {
    for_floating(type, [&](auto zero) {
      using T = decltype(zero);
      pool_backward<<<blocks_for(grad.numel()), THREADS, 0, device.stream>>>(
          input_data<T>(grad_in),
          input_data<T>(input_in),
          input_data<T>(rois_in),
          offset_in ? input_data<T>(*offset_in) : nullptr,
          s,
          static_cast<Wide<T>>(spatial_scale),
          static_cast<Wide<T>>(gamma),
          output_data<Wide<T>>(by_input),
          output_data<Wide<T>>(by_offset));
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  }
  return {as_type(by_input, type), as_type(by_offset, type)};
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CUDA, m) {
  m.impl("deform_roi_pool", TORCH_BOX(&sdk::deform_roi_pool));
  m.impl("deform_roi_pool_backward", TORCH_BOX(&sdk::deform_roi_pool_backward));
}
