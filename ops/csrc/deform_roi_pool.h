// Argument checks and geometry of deformable RoI pooling, for the CPU and CUDA kernels.
#pragma once

#include "common.h"

#include <cmath>

#ifdef __CUDACC__
#define SDK_BOTH_ROI __host__ __device__ __forceinline__
#else
#define SDK_BOTH_ROI inline __attribute__((always_inline))
#endif

namespace sdk {

// Shape letters: B images, C channels, H x W pixels of the feature map, K regions, P x Q bins of a region.
struct RoiPoolSizes {
  int64_t batch, channels, height, width, regions, rows, columns, sampling_ratio;

  RoiPoolSizes(
      const Tensor& input,
      const Tensor& rois,
      const std::optional<Tensor>& offset,
      int64_t output_height,
      int64_t output_width,
      double spatial_scale,
      int64_t ratio,
      double gamma)
      : rows(output_height), columns(output_width), sampling_ratio(ratio) {
    check_shape("input", input, {ANY, ANY, ANY, ANY});
    check_floating("input", input);
    check_shape("rois", rois, {ANY, 5});
    check_like("rois", rois, input);
    check(rows > 0 && columns > 0, "output_size: expected numbers above 0, found ", rows, " x ", columns);
    check_number("spatial_scale", spatial_scale, spatial_scale > 0, "a number above 0");
    check_number("gamma", gamma, gamma == gamma, "a number");
    batch = input.size(0), channels = input.size(1), height = input.size(2), width = input.size(3);
    regions = rois.size(0);
    if (offset) {
      check_shape("offset", *offset, {regions, 2, rows, columns});
      check_like("offset", *offset, input);
    }
    check(regions == 0 || input.numel() > 0, "input: expected at least one value to pool");
    check(ratio <= MOST_SAMPLES, "sampling_ratio: expected at most ", MOST_SAMPLES, ", found ", ratio);
  }

  void check_grad(const Tensor& grad, const Tensor& input) const {
    check_shape("grad", grad, {regions, channels, rows, columns});
    check_like("grad", grad, input);
  }

  // More samples along a side of a bin than any real region needs.
  static constexpr int64_t MOST_SAMPLES = 4096;
};

// Where a region lies in the feature map and how densely its bins are sampled.
template <typename W>
struct RoiGeometry {
  int64_t image, grid_height, grid_width;
  W x, y, width, height, bin_width, bin_height, samples;

  template <typename T>
  SDK_BOTH_ROI RoiGeometry(const T* roi, const RoiPoolSizes& sizes, W scale) {
    // Casting numbers that no integer holds is undefined.
    const W index = static_cast<W>(roi[0]);
    image = index >= W(0) && index < static_cast<W>(sizes.batch) ? static_cast<int64_t>(index) : -1;
    x = static_cast<W>(roi[1]) * scale - W(0.5);
    y = static_cast<W>(roi[2]) * scale - W(0.5);
    width = static_cast<W>(roi[3]) * scale - W(0.5) - x;
    height = static_cast<W>(roi[4]) * scale - W(0.5) - y;
    bin_width = width / static_cast<W>(sizes.columns);
    bin_height = height / static_cast<W>(sizes.rows);
    grid_height = sizes.sampling_ratio > 0 ? sizes.sampling_ratio : rounded_up(bin_height);
    grid_width = sizes.sampling_ratio > 0 ? sizes.sampling_ratio : rounded_up(bin_width);
    samples = static_cast<W>(grid_height * grid_width > 1 ? grid_height * grid_width : 1);
  }

  SDK_BOTH_ROI static int64_t rounded_up(W bin) {
    const W most = static_cast<W>(RoiPoolSizes::MOST_SAMPLES);
    return bin > W(0) ? static_cast<int64_t>(ceil(bin < most ? bin : most)) : 0;
  }
};

// One axis of a bilinear sample: between two pixels, of which `high` has the weight `fraction`. `slope` is how that
// weight grows with the point: 0 where the point is clamped.
template <typename W>
struct AxisSample {
  int64_t low, high;
  W fraction, slope;
  bool inside;

  SDK_BOTH_ROI AxisSample(W at, int64_t size) {
    const W last = static_cast<W>(size - 1);
    // Written so that NaN counts as outside.
    inside = at >= W(-1) && at <= static_cast<W>(size);
    if (!inside) {
      return;
    }
    slope = at > W(0) && at < last ? W(1) : W(0);
    at = at < W(0) ? W(0) : (at > last ? last : at);
    low = static_cast<int64_t>(at);
    high = low + 1 < size ? low + 1 : low;
    fraction = at - static_cast<W>(low);
  }
};

}  // namespace sdk
