#include "../ms_deform_attn.h"
#include "cuda.cuh"

// Shape letters: B images, S values of all levels, Q queries, M heads, D channels of a head, L levels, P points.
//
// Levels are checked here value by value: looking at them on the host would wait for the device.

namespace sdk {
namespace {

// One bilinear sample: indices into the S values (-1 where outside) and the fractions.
template <typename W>
struct Sample {
  int64_t corner[4];
  W dx, dy;
  bool any;

  __device__ Sample(W x, W y, int64_t height, int64_t width, int64_t start, int64_t total) {
    // Written so that NaN counts as outside.
    any = x > W(-1) && y > W(-1) && x < static_cast<W>(width) && y < static_cast<W>(height);
    if (!any) {
      return;
    }
    const W left = floor(x), top = floor(y);
    dx = x - left;
    dy = y - top;
    for (int k = 0; k < 4; ++k) {
      const int64_t column = static_cast<int64_t>(left) + k % 2, row = static_cast<int64_t>(top) + k / 2;
      const int64_t index = start + row * width + column;
      const bool inside = column >= 0 && column < width && row >= 0 && row < height && index >= 0 && index < total;
      corner[k] = inside ? index : -1;
    }
  }

  __device__ W share(int k) const {
    return (k / 2 ? dy : W(1) - dy) * (k % 2 ? dx : W(1) - dx);
  }
};

template <typename T>
__global__ void attend(
    const T* value,
    const int64_t* shapes,
    const int64_t* starts,
    const T* locations,
    const T* weights,
    DeformAttnSizes s,
    T* out) {
  using W = Wide<T>;
  SDK_FOR_EACH(i, s.batch * s.queries * s.heads * s.channels) {
    const int64_t d = i % s.channels, row = i / s.channels;  // row: image, query, head
    const int64_t head = row % s.heads, image = row / s.heads / s.queries;
    W sum = 0;
    for (int64_t level = 0; level < s.levels; ++level) {
      const int64_t height = shapes[2 * level], width = shapes[2 * level + 1];
      for (int64_t point = 0; point < s.points; ++point) {
        const int64_t at = (row * s.levels + level) * s.points + point;
        const W x = static_cast<W>(locations[2 * at]) * static_cast<W>(width) - W(0.5);
        const W y = static_cast<W>(locations[2 * at + 1]) * static_cast<W>(height) - W(0.5);
        const Sample<W> sample(x, y, height, width, starts[level], s.total);
        if (!sample.any) {
          continue;
        }
        const W attention = static_cast<W>(weights[at]);
        for (int k = 0; k < 4; ++k) {
          if (sample.corner[k] >= 0) {
            const int64_t source = ((image * s.total + sample.corner[k]) * s.heads + head) * s.channels + d;
            sum += attention * sample.share(k) * static_cast<W>(value[source]);
          }
        }
      }
    }
    out[i] = static_cast<T>(sum);
  }
}

template <typename W>
__device__ W warp_sum(W value) {
  for (int step = 16; step > 0; step /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, step);
  }
  return value;
}

// One warp takes one image, query and head; its lanes share the channels.
template <typename T>
__global__ void attend_backward(
    const T* grad,
    const T* value,
    const int64_t* shapes,
    const int64_t* starts,
    const T* locations,
    const T* weights,
    DeformAttnSizes s,
    Wide<T>* by_value,
    T* by_locations,
    T* by_weights) {
  using W = Wide<T>;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (blockDim.x / 32);
  const int lane = threadIdx.x % 32;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
       row < s.batch * s.queries * s.heads;
       row += warps) {
    const int64_t head = row % s.heads, image = row / s.heads / s.queries;
    for (int64_t level = 0; level < s.levels; ++level) {
      const int64_t height = shapes[2 * level], width = shapes[2 * level + 1];
      for (int64_t point = 0; point < s.points; ++point) {
        const int64_t at = (row * s.levels + level) * s.points + point;
        const W x = static_cast<W>(locations[2 * at]) * static_cast<W>(width) - W(0.5);
        const W y = static_cast<W>(locations[2 * at + 1]) * static_cast<W>(height) - W(0.5);
        const Sample<W> sample(x, y, height, width, starts[level], s.total);
        const W attention = static_cast<W>(weights[at]);
        W product[4] = {0, 0, 0, 0};  // of the upstream gradient and each corner
        if (sample.any) {
          for (int k = 0; k < 4; ++k) {
            if (sample.corner[k] < 0) {
              continue;
            }
            const int64_t source = ((image * s.total + sample.corner[k]) * s.heads + head) * s.channels;
            const W factor = attention * sample.share(k);
            for (int64_t d = lane; d < s.channels; d += 32) {
              const W upstream = static_cast<W>(grad[row * s.channels + d]);
              product[k] += upstream * static_cast<W>(value[source + d]);
              atomicAdd(by_value + source + d, factor * upstream);
            }
          }
        }
        for (int k = 0; k < 4; ++k) {
          product[k] = warp_sum(product[k]);
        }
        if (lane == 0) {
          W by_weight = 0, by_x = 0, by_y = 0;
          if (sample.any) {
            for (int k = 0; k < 4; ++k) {
              by_weight += sample.share(k) * product[k];
            }
            by_x = (W(1) - sample.dy) * (product[1] - product[0]) + sample.dy * (product[3] - product[2]);
            by_y = (W(1) - sample.dx) * (product[2] - product[0]) + sample.dx * (product[3] - product[1]);
          }
          by_weights[at] = static_cast<T>(by_weight);
          by_locations[2 * at] = static_cast<T>(attention * static_cast<W>(width) * by_x);
          by_locations[2 * at + 1] = static_cast<T>(attention * static_cast<W>(height) * by_y);
        }
      }
    }
  }
}

Tensor ms_deform_attn(
    const Tensor& value,
    const Tensor& spatial_shapes,
    const Tensor& level_start_index,
    const Tensor& sampling_locations,
    const Tensor& attention_weights) {
  const DeformAttnSizes s(value, spatial_shapes, level_start_index, sampling_locations, attention_weights);
  const OnDevice device(value);
  const Tensor value_in = packed(value), shapes_in = packed(spatial_shapes), starts_in = packed(level_start_index);
  const Tensor locations_in = packed(sampling_locations), weights_in = packed(attention_weights);
  const Tensor out = empty(value, {s.batch, s.queries, s.heads * s.channels});
  if (out.numel() == 0) {
    return out;
  }
  for_floating(value.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    attend<<<blocks_for(out.numel()), THREADS, 0, device.stream>>>(
        input_data<T>(value_in),
        input_data<int64_t>(shapes_in),
        input_data<int64_t>(starts_in),
        input_data<T>(locations_in),
        input_data<T>(weights_in),
        s,
        output_data<T>(out));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

std::tuple<Tensor, Tensor, Tensor> ms_deform_attn_backward(
    const Tensor& grad,
    const Tensor& value,
    const Tensor& spatial_shapes,
    const Tensor& level_start_index,
    const Tensor& sampling_locations,
    const Tensor& attention_weights) {
  const DeformAttnSizes s(value, spatial_shapes, level_start_index, sampling_locations, attention_weights);
  s.check_grad(grad, value);
  const OnDevice device(value);
  const Tensor grad_in = packed(grad), value_in = packed(value);
  const Tensor shapes_in = packed(spatial_shapes), starts_in = packed(level_start_index);
  const Tensor locations_in = packed(sampling_locations), weights_in = packed(attention_weights);
  const ScalarType type = value.scalar_type();
  const Tensor by_value = zeros(value, {s.batch, s.total, s.heads, s.channels}, wide_type(type));
  const Tensor by_locations = empty(value, {s.batch, s.queries, s.heads, s.levels, s.points, 2});
  const Tensor by_weights = empty(value, {s.batch, s.queries, s.heads, s.levels, s.points});
  const int64_t rows = s.batch * s.queries * s.heads;
  if (rows > 0) {
    for_floating(type, [&](auto zero) {
      using T = decltype(zero);
      attend_backward<<<blocks_for(rows, THREADS / 32), THREADS, 0, device.stream>>>(
          input_data<T>(grad_in),
          input_data<T>(value_in),
          input_data<int64_t>(shapes_in),
          input_data<int64_t>(starts_in),
          input_data<T>(locations_in),
          input_data<T>(weights_in),
          s,
          output_data<Wide<T>>(by_value),
          output_data<T>(by_locations),
          output_data<T>(by_weights));
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  }
  return {as_type(by_value, type), by_locations, by_weights};
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CUDA, m) {
  m.impl("ms_deform_attn", TORCH_BOX(&sdk::ms_deform_attn));
  m.impl("ms_deform_attn_backward", TORCH_BOX(&sdk::ms_deform_attn_backward));
}
