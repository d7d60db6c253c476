// Argument checks and sizes of multi-scale deformable attention, for the CPU and CUDA kernels.
#pragma once

#include "common.h"

namespace sdk {

// Shape letters: B images, S values of all levels, Q queries, M heads, D channels of a head, L levels, P points.
struct DeformAttnSizes {
  int64_t batch, total, queries, heads, channels, levels, points;

  DeformAttnSizes(
      const Tensor& value,
      const Tensor& spatial_shapes,
      const Tensor& level_start_index,
      const Tensor& sampling_locations,
      const Tensor& attention_weights) {
    check_shape("value", value, {ANY, ANY, ANY, ANY});
    check_floating("value", value);
    check_shape("spatial_shapes", spatial_shapes, {ANY, 2});
    check_integer("spatial_shapes", spatial_shapes, value);
    batch = value.size(0), total = value.size(1), heads = value.size(2), channels = value.size(3);
    levels = spatial_shapes.size(0);
    check_shape("level_start_index", level_start_index, {levels});
    check_integer("level_start_index", level_start_index, value);
    check_shape("sampling_locations", sampling_locations, {batch, ANY, heads, levels, ANY, 2});
    check_like("sampling_locations", sampling_locations, value);
    queries = sampling_locations.size(1), points = sampling_locations.size(4);
    check_shape("attention_weights", attention_weights, {batch, queries, heads, levels, points});
    check_like("attention_weights", attention_weights, value);
  }

  void check_grad(const Tensor& grad, const Tensor& value) const {
    check_shape("grad", grad, {batch, queries, heads * channels});
    check_like("grad", grad, value);
  }
};

}  // namespace sdk
