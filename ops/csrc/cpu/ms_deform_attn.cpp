#include "cpu.h"

#include "../ms_deform_attn.h"

#include <algorithm>
#include <vector>

// Shape letters: B images, S values of all levels, Q queries, M heads, D channels of a head, L levels, P points.

namespace sdk {
namespace {

void check_levels(const int64_t* shapes, const int64_t* starts, const DeformAttnSizes& sizes) {
  for (int64_t level = 0; level < sizes.levels; ++level) {
    const int64_t height = shapes[2 * level], width = shapes[2 * level + 1], start = starts[level];
    const bool inside = height >= 1 && width >= 1 && start >= 0 && height <= sizes.total && width <= sizes.total &&
        start <= sizes.total - height * width;
    check(
        inside,
        "spatial_shapes: level ",
        level,
        " of ",
        height,
        " x ",
        width,
        " from ",
        start,
        " leaves the ",
        sizes.total,
        " values");
  }
}

// One bilinear sample: the four corners as value indices of the level (-1 where outside) and the fractions.
template <typename W>
struct Sample {
  int64_t corner[4];
  W dx, dy;
  bool any;

  inline __attribute__((always_inline)) Sample(W x, W y, int64_t height, int64_t width) {
    // Written so that NaN counts as outside.
    any = x > W(-1) && y > W(-1) && x < static_cast<W>(width) && y < static_cast<W>(height);
    if (!any) {
      return;
    }
    const W left = std::floor(x), top = std::floor(y);
    dx = x - left;
    dy = y - top;
    const int64_t column = static_cast<int64_t>(left), row = static_cast<int64_t>(top);
    const bool has_left = column >= 0, has_right = column + 1 < width;
    const bool has_top = row >= 0, has_bottom = row + 1 < height;
    corner[0] = has_top && has_left ? row * width + column : -1;
    corner[1] = has_top && has_right ? row * width + column + 1 : -1;
    corner[2] = has_bottom && has_left ? (row + 1) * width + column : -1;
    corner[3] = has_bottom && has_right ? (row + 1) * width + column + 1 : -1;
  }
};

// The part of one image and head: values (S, D) `step` apart, locations and weights of queries `begin` to `end`.
template <typename T, typename W = Wide<T>>
SDK_SIMD void attend(
    const T* __restrict value,
    const int64_t* __restrict shapes,
    const int64_t* __restrict starts,
    const T* __restrict locations,
    const T* __restrict weights,
    const DeformAttnSizes& sizes,
    int64_t begin,
    int64_t end,
    W* __restrict sums,
    T* __restrict out) {
  const int64_t channels = sizes.channels, step = sizes.heads * channels, samples = sizes.levels * sizes.points;
  for (int64_t query = begin; query < end; ++query) {
    const T* location = locations + query * sizes.heads * samples * 2;
    const T* weight = weights + query * sizes.heads * samples;
    for (int64_t d = 0; d < channels; ++d) {
      sums[d] = 0;
    }
    for (int64_t level = 0; level < sizes.levels; ++level) {
      const int64_t height = shapes[2 * level], width = shapes[2 * level + 1];
      const T* plane = value + starts[level] * step;
      for (int64_t point = 0; point < sizes.points; ++point, location += 2, ++weight) {
        const W x = static_cast<W>(location[0]) * static_cast<W>(width) - W(0.5);
        const W y = static_cast<W>(location[1]) * static_cast<W>(height) - W(0.5);
        const Sample<W> sample(x, y, height, width);
        if (!sample.any) {
          continue;
        }
        const W attention = static_cast<W>(*weight);
        const W share[4] = {
            attention * (1 - sample.dy) * (1 - sample.dx),
            attention * (1 - sample.dy) * sample.dx,
            attention * sample.dy * (1 - sample.dx),
            attention * sample.dy * sample.dx};
        for (int64_t k = 0; k < 4; ++k) {
          if (sample.corner[k] >= 0) {
            const T* source = plane + sample.corner[k] * step;
            for (int64_t d = 0; d < channels; ++d) {
              sums[d] += share[k] * static_cast<W>(source[d]);
            }
          }
        }
      }
    }
    T* place = out + query * step;
    for (int64_t d = 0; d < channels; ++d) {
      place[d] = static_cast<T>(sums[d]);
    }
  }
}

// As `attend`, for all queries of one image and head; `by_value` (S, D) of this head only.
template <typename T, typename W = Wide<T>>
SDK_SIMD void attend_backward(
    const T* __restrict upstream,
    const T* __restrict value,
    const int64_t* __restrict shapes,
    const int64_t* __restrict starts,
    const T* __restrict locations,
    const T* __restrict weights,
    const DeformAttnSizes& sizes,
    W* __restrict grad,
    W* __restrict by_value,
    T* __restrict by_locations,
    T* __restrict by_weights) {
  const int64_t channels = sizes.channels, step = sizes.heads * channels, samples = sizes.levels * sizes.points;
  for (int64_t query = 0; query < sizes.queries; ++query) {
    for (int64_t d = 0; d < channels; ++d) {
      grad[d] = static_cast<W>(upstream[query * step + d]);
    }
    for (int64_t level = 0; level < sizes.levels; ++level) {
      const int64_t height = shapes[2 * level], width = shapes[2 * level + 1];
      for (int64_t point = 0; point < sizes.points; ++point) {
        const int64_t at = query * sizes.heads * samples + level * sizes.points + point;
        const W x = static_cast<W>(locations[2 * at]) * static_cast<W>(width) - W(0.5);
        const W y = static_cast<W>(locations[2 * at + 1]) * static_cast<W>(height) - W(0.5);
        const Sample<W> sample(x, y, height, width);
        if (!sample.any) {
          by_weights[at] = by_locations[2 * at] = by_locations[2 * at + 1] = static_cast<T>(0.0f);
          continue;
        }
        const W attention = static_cast<W>(weights[at]);
        const W dx = sample.dx, dy = sample.dy;
        const W share[4] = {(1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx};
        W product[4] = {};  // of the upstream gradient and each corner
        for (int64_t k = 0; k < 4; ++k) {
          if (sample.corner[k] < 0) {
            continue;
          }
          const int64_t index = starts[level] + sample.corner[k];
          const T* source = value + index * step;
          W* target = by_value + index * channels;
          const W factor = attention * share[k];
          W sum = 0;
#pragma omp simd reduction(+ : sum)
          for (int64_t d = 0; d < channels; ++d) {
            sum += grad[d] * static_cast<W>(source[d]);
            target[d] += factor * grad[d];
          }
          product[k] = sum;
        }
        const W by_x = (1 - dy) * (product[1] - product[0]) + dy * (product[3] - product[2]);
        const W by_y = (1 - dx) * (product[2] - product[0]) + dx * (product[3] - product[1]);
        by_weights[at] = static_cast<T>(
            share[0] * product[0] + share[1] * product[1] + share[2] * product[2] + share[3] * product[3]);
        by_locations[2 * at] = static_cast<T>(attention * static_cast<W>(width) * by_x);
        by_locations[2 * at + 1] = static_cast<T>(attention * static_cast<W>(height) * by_y);
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
  const DeformAttnSizes sizes(value, spatial_shapes, level_start_index, sampling_locations, attention_weights);
  const Tensor value_in = packed(value), shapes_in = packed(spatial_shapes);
  const Tensor starts_in = packed(level_start_index);
  const Tensor locations_in = packed(sampling_locations), weights_in = packed(attention_weights);
  const int64_t* shapes = input_data<int64_t>(shapes_in);
  const int64_t* starts = input_data<int64_t>(starts_in);
  check_levels(shapes, starts, sizes);
  const Tensor out = empty(value_in, {sizes.batch, sizes.queries, sizes.heads * sizes.channels});
  if (out.numel() == 0) {
    return out;
  }
  const int64_t samples = sizes.levels * sizes.points;
  for_floating(value.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    const T* values = input_data<T>(value_in);
    const T* locations = input_data<T>(locations_in);
    const T* weights = input_data<T>(weights_in);
    T* result = output_data<T>(out);
    // Queries of one image and head follow each other: they read the same values.
    const int64_t tasks = sizes.batch * sizes.heads * sizes.queries;
    parallel_for(0, tasks, grain(samples * sizes.channels), [&](int64_t begin, int64_t end) {
      std::vector<W> sums(sizes.channels);
      while (begin < end) {
        const int64_t head = begin / sizes.queries % sizes.heads, image = begin / sizes.queries / sizes.heads;
        const int64_t first = begin % sizes.queries, last = std::min(sizes.queries, first + end - begin);
        const int64_t place = image * sizes.queries * sizes.heads + head;
        attend(
            values + (image * sizes.total * sizes.heads + head) * sizes.channels,
            shapes,
            starts,
            locations + place * samples * 2,
            weights + place * samples,
            sizes,
            first,
            last,
            sums.data(),
            result + place * sizes.channels);
        begin += last - first;
      }
    });
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
  const DeformAttnSizes sizes(value, spatial_shapes, level_start_index, sampling_locations, attention_weights);
  sizes.check_grad(grad, value);
  const Tensor grad_in = packed(grad), value_in = packed(value), shapes_in = packed(spatial_shapes);
  const Tensor starts_in = packed(level_start_index);
  const Tensor locations_in = packed(sampling_locations), weights_in = packed(attention_weights);
  const int64_t* shapes = input_data<int64_t>(shapes_in);
  const int64_t* starts = input_data<int64_t>(starts_in);
  check_levels(shapes, starts, sizes);
  const Tensor by_value = empty(value_in, {sizes.batch, sizes.total, sizes.heads, sizes.channels});
  const Tensor by_locations =
      empty(value_in, {sizes.batch, sizes.queries, sizes.heads, sizes.levels, sizes.points, 2});
  const Tensor by_weights = empty(value_in, {sizes.batch, sizes.queries, sizes.heads, sizes.levels, sizes.points});
  const int64_t samples = sizes.levels * sizes.points;
  for_floating(value.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    const T* upstream = input_data<T>(grad_in);
    const T* values = input_data<T>(value_in);
    const T* locations = input_data<T>(locations_in);
    const T* weights = input_data<T>(weights_in);
    T* values_out = output_data<T>(by_value);
    T* locations_out = output_data<T>(by_locations);
    T* weights_out = output_data<T>(by_weights);
    // Queries of one image and head are taken in order by one thread: the sums do not depend on the threads.
    parallel_for(0, sizes.batch * sizes.heads, 1, [&](int64_t begin, int64_t end) {
      std::vector<W> sums(sizes.total * sizes.channels), row(sizes.channels);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t image = task / sizes.heads, head = task % sizes.heads;
        const int64_t values_at = (image * sizes.total * sizes.heads + head) * sizes.channels;
        const int64_t place = image * sizes.queries * sizes.heads + head;
        std::fill(sums.begin(), sums.end(), W{0});
        attend_backward(
            upstream + place * sizes.channels,
            values + values_at,
            shapes,
            starts,
            locations + place * samples * 2,
            weights + place * samples,
            sizes,
            row.data(),
            sums.data(),
            locations_out + place * samples * 2,
            weights_out + place * samples);
        for (int64_t i = 0; i < sizes.total; ++i) {
          T* target = values_out + values_at + i * sizes.heads * sizes.channels;
          for (int64_t d = 0; d < sizes.channels; ++d) {
            target[d] = static_cast<T>(sums[i * sizes.channels + d]);
          }
        }
      }
    });
  });
  return {by_value, by_locations, by_weights};
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CPU, m) {
  m.impl("ms_deform_attn", TORCH_BOX(&sdk::ms_deform_attn));
  m.impl("ms_deform_attn_backward", TORCH_BOX(&sdk::ms_deform_attn_backward));
}
