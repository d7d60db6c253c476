#include "cpu.h"

#include "../deform_roi_pool.h"
#include "transpose.h"

#include <algorithm>
#include <vector>

// Shape letters: B images, C channels, H x W pixels of the feature map, K regions, P x Q bins of a region.

namespace sdk {
namespace {

// Maps are turned to (H, W, C), where the channels of a pixel are neighbours and are read and added to as vectors. This
// goes image by image, so that one such map is held at a time.

// A pixel that a bin reads: where in the map, with which weight, and how that weight moves with the bin.
template <typename W>
struct Tap {
  int64_t index;
  W weight, by_x, by_y;
};

// The same along one axis.
template <typename W>
struct AxisTap {
  int64_t index;
  W weight, slope;
};

// The samples of a bin are a grid, so the weight of a pixel is that of its row times that of its column, each the sum
// over the samples that touch it.
template <typename W>
void find_axis_taps(W start, W length, int64_t samples, int64_t size, std::vector<AxisTap<W>>& taps) {
  const auto add = [&](int64_t index, W weight, W slope) {
    const size_t recent = taps.size() < 3 ? 0 : taps.size() - 3;
    for (size_t i = recent; i < taps.size(); ++i) {
      if (taps[i].index == index) {
        taps[i].weight += weight;
        taps[i].slope += slope;
        return;
      }
    }
    taps.push_back({index, weight, slope});
  };
  taps.clear();
  const W share = W(1) / static_cast<W>(samples);
  for (int64_t i = 0; i < samples; ++i) {
    const AxisSample<W> sample(start + (static_cast<W>(i) + W(0.5)) * length * share, size);
    if (sample.inside) {
      add(sample.low, (1 - sample.fraction) * share, -sample.slope * share);
      add(sample.high, sample.fraction * share, sample.slope * share);
    }
  }
}

// The taps of all bins of one region, bin after bin; those of bin i end at `ends_[i]`.
template <typename T, typename W = Wide<T>>
class Taps {
 public:
  // rois (K, 5), offset (K, 2, P, Q) or null.
  Taps(const T* rois, const T* offset, const RoiPoolSizes& sizes, double scale, double gamma)
      : rois_(rois),
        offset_(offset),
        sizes_(sizes),
        scale_(static_cast<W>(scale)),
        gamma_(static_cast<W>(gamma)),
        bins_(sizes.rows * sizes.columns),
        ends_(bins_) {}

  // Moves on to region n.
  void find(int64_t n) {
    const RoiGeometry<W> roi(rois_ + 5 * n, sizes_, scale_);
    unit_x = gamma_ * roi.width;
    unit_y = gamma_ * roi.height;
    taps_.clear();
    for (int64_t bin = 0; bin < bins_; ++bin) {
      W x = roi.x + static_cast<W>(bin % sizes_.columns) * roi.bin_width;
      W y = roi.y + static_cast<W>(bin / sizes_.columns) * roi.bin_height;
      if (offset_ != nullptr) {
        x += unit_x * static_cast<W>(offset_[2 * n * bins_ + bin]);
        y += unit_y * static_cast<W>(offset_[(2 * n + 1) * bins_ + bin]);
      }
      find_axis_taps(y, roi.bin_height, roi.grid_height, sizes_.height, rows_);
      find_axis_taps(x, roi.bin_width, roi.grid_width, sizes_.width, columns_);
      for (const AxisTap<W>& row : rows_) {
        for (const AxisTap<W>& column : columns_) {
          taps_.push_back(
              {row.index * sizes_.width + column.index,
               row.weight * column.weight,
               row.weight * column.slope,
               row.slope * column.weight});
        }
      }
      ends_[bin] = static_cast<int64_t>(taps_.size());
    }
  }

  const Tap<W>* begin(int64_t bin) const {
    return taps_.data() + (bin > 0 ? ends_[bin - 1] : 0);
  }

  const Tap<W>* end(int64_t bin) const {
    return taps_.data() + ends_[bin];
  }

  // How far, in feature pixels, an offset of 1 moves the bins.
  W unit_x = 0, unit_y = 0;

 private:
  const T *rois_, *offset_;
  const RoiPoolSizes& sizes_;
  W scale_, gamma_;
  int64_t bins_;
  std::vector<int64_t> ends_;
  std::vector<Tap<W>> taps_;
  std::vector<AxisTap<W>> rows_, columns_;
};

// The sum over taps of map (H, W, C), each weighted by the given member of the tap.
template <typename W>
SDK_SIMD void gather(
    const W* __restrict map,
    int64_t channels,
    const Tap<W>* tap,
    const Tap<W>* last,
    W Tap<W>::*factor,
    W* __restrict sums) {
  std::fill_n(sums, channels, W{0});
  for (; tap != last; ++tap) {
    const W weight = tap->*factor;
    const W* pixel = map + tap->index * channels;
    for (int64_t c = 0; c < channels; ++c) {
      sums[c] += weight * pixel[c];
    }
  }
}

// Adds values (`count`,) to the same channels of the taps of a map (H, W, `channels`).
template <typename W>
SDK_SIMD void scatter(
    const W* __restrict values,
    int64_t count,
    const Tap<W>* tap,
    const Tap<W>* last,
    int64_t channels,
    W* __restrict map) {
  for (; tap != last; ++tap) {
    const W weight = tap->weight;
    W* pixel = map + tap->index * channels;
    for (int64_t c = 0; c < count; ++c) {
      pixel[c] += weight * values[c];
    }
  }
}

template <typename W>
SDK_SIMD W dot(const W* __restrict a, const W* __restrict b, int64_t count) {
  constexpr int64_t LANES = 32;
  W partial[LANES] = {};
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    for (int64_t lane = 0; lane < LANES; ++lane) {
      partial[lane] += a[i + lane] * b[i + lane];
    }
  }
  for (; i < count; ++i) {
    partial[0] += a[i] * b[i];
  }
  W sum = 0;
  for (const W part : partial) {
    sum += part;
  }
  return sum;
}

// planes (C, H, W) to map (H, W, C), by all threads; and back.
template <typename T, typename W>
void planes_to_map(const T* planes, const RoiPoolSizes& sizes, W* map) {
  const int64_t area = sizes.height * sizes.width, channels = sizes.channels;
  parallel_for(0, area, grain(channels), [&](int64_t begin, int64_t end) {
    transpose(planes + begin, area, channels, end - begin, map + begin * channels, channels);
  });
}

template <typename T, typename W>
void map_to_planes(const W* map, const RoiPoolSizes& sizes, T* planes) {
  const int64_t area = sizes.height * sizes.width, channels = sizes.channels;
  parallel_for(0, area, grain(channels), [&](int64_t begin, int64_t end) {
    transpose(map + begin * channels, channels, end - begin, channels, planes + begin, area);
  });
}

// The regions of each image.
template <typename T>
std::vector<std::vector<int64_t>> by_image(const T* rois, const RoiPoolSizes& sizes) {
  std::vector<std::vector<int64_t>> found(sizes.batch);
  for (int64_t n = 0; n < sizes.regions; ++n) {
    found[static_cast<int64_t>(static_cast<Wide<T>>(rois[5 * n]))].push_back(n);
  }
  return found;
}

template <typename T>
void check_rois(const Tensor& rois, const RoiPoolSizes& sizes, double scale) {
  check_finite<T>("rois", rois);
  const T* values = input_data<T>(rois);
  for (int64_t n = 0; n < sizes.regions; ++n) {
    const Wide<T> image = static_cast<Wide<T>>(values[5 * n]);
    check(
        image >= 0 && image < static_cast<Wide<T>>(sizes.batch),
        "rois: expected image indices below ",
        sizes.batch,
        ", found ",
        image);
    const RoiGeometry<Wide<T>> roi(values + 5 * n, sizes, static_cast<Wide<T>>(scale));
    check(
        std::max(roi.grid_height, roi.grid_width) < RoiPoolSizes::MOST_SAMPLES || sizes.sampling_ratio > 0,
        "rois: expected bins of less than ",
        RoiPoolSizes::MOST_SAMPLES,
        " feature pixels a side, found more in region ",
        n);
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
  const RoiPoolSizes sizes(
      input, rois, offset, output_height, output_width, spatial_scale, sampling_ratio, gamma);
  const Tensor input_in = packed(input), rois_in = packed(rois);
  const std::optional<Tensor> offset_in = packed(offset);
  const Tensor out = empty(input_in, {sizes.regions, sizes.channels, output_height, output_width});
  const int64_t bins = output_height * output_width, area = sizes.height * sizes.width;
  for_floating(input.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    check_rois<T>(rois_in, sizes, spatial_scale);
    const T* boxes = input_data<T>(rois_in);
    const T* shifts = offset_in ? input_data<T>(*offset_in) : nullptr;
    std::vector<W> map(area * sizes.channels);
    const std::vector<std::vector<int64_t>> groups = by_image(boxes, sizes);
    for (int64_t image = 0; image < sizes.batch; ++image) {
      const std::vector<int64_t>& group = groups[image];
      if (group.empty()) {
        continue;
      }
      planes_to_map(input_data<T>(input_in) + image * sizes.channels * area, sizes, map.data());
      parallel_for(0, group.size(), grain(16 * sizes.channels * bins), [&](int64_t begin, int64_t end) {
        Taps<T> taps(boxes, shifts, sizes, spatial_scale, gamma);
        std::vector<W> pooled(bins * sizes.channels);
        for (int64_t member = begin; member < end; ++member) {
          const int64_t n = group[member];
          taps.find(n);
          for (int64_t bin = 0; bin < bins; ++bin) {
            W* sums = pooled.data() + bin * sizes.channels;
            gather(map.data(), sizes.channels, taps.begin(bin), taps.end(bin), &Tap<W>::weight, sums);
          }
          T* result = output_data<T>(out) + n * sizes.channels * bins;
          transpose(pooled.data(), sizes.channels, bins, sizes.channels, result, bins);
        }
      });
    }
  });
  return out;
}

// Gradients by the input, and by the offset (empty without one).
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
  const RoiPoolSizes sizes(
      input, rois, offset, output_height, output_width, spatial_scale, sampling_ratio, gamma);
  sizes.check_grad(grad, input);
  const Tensor grad_in = packed(grad), input_in = packed(input), rois_in = packed(rois);
  const std::optional<Tensor> offset_in = packed(offset);
  const Tensor by_input = empty(input_in, {sizes.batch, sizes.channels, sizes.height, sizes.width});
  const Tensor by_offset = empty(input_in, {offset ? sizes.regions : 0, 2, output_height, output_width});
  const int64_t bins = output_height * output_width, area = sizes.height * sizes.width;
  for_floating(input.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    check_rois<T>(rois_in, sizes, spatial_scale);
    const T* boxes = input_data<T>(rois_in);
    const T* shifts = offset_in ? input_data<T>(*offset_in) : nullptr;
    const int64_t channels = sizes.channels;
    std::vector<W> map(area * channels);
    const std::vector<std::vector<int64_t>> groups = by_image(boxes, sizes);
    for (int64_t image = 0; image < sizes.batch; ++image) {
      const std::vector<int64_t>& group = groups[image];
      if (shifts != nullptr && !group.empty()) {
        planes_to_map(input_data<T>(input_in) + image * channels * area, sizes, map.data());
        parallel_for(0, group.size(), grain(32 * channels * bins), [&](int64_t begin, int64_t end) {
          Taps<T> taps(boxes, shifts, sizes, spatial_scale, gamma);
          std::vector<W> upstream(bins * channels), slope(channels);
          for (int64_t member = begin; member < end; ++member) {
            const int64_t n = group[member];
            taps.find(n);
            transpose(input_data<T>(grad_in) + n * channels * bins, bins, channels, bins, upstream.data(), channels);
            T* result = output_data<T>(by_offset) + 2 * n * bins;
            for (int64_t bin = 0; bin < bins; ++bin) {
              const W* factors = upstream.data() + bin * channels;
              gather(map.data(), channels, taps.begin(bin), taps.end(bin), &Tap<W>::by_x, slope.data());
              const W by_x = dot(factors, slope.data(), channels);
              gather(map.data(), channels, taps.begin(bin), taps.end(bin), &Tap<W>::by_y, slope.data());
              const W by_y = dot(factors, slope.data(), channels);
              result[bin] = static_cast<T>(by_x * taps.unit_x);
              result[bins + bin] = static_cast<T>(by_y * taps.unit_y);
            }
          }
        });
      }
      std::fill(map.begin(), map.end(), W{0});
      // Every thread takes some channels of all regions in turn: the order of the sums is fixed.
      const int64_t operations = 16 * bins * static_cast<int64_t>(group.size());
      parallel_for(0, channels, grain(operations), [&](int64_t begin, int64_t end) {
        Taps<T> taps(boxes, shifts, sizes, spatial_scale, gamma);
        const int64_t count = end - begin;
        std::vector<W> upstream(bins * count);
        for (const int64_t n : group) {
          taps.find(n);
          const T* grads = input_data<T>(grad_in) + (n * channels + begin) * bins;
          transpose(grads, bins, count, bins, upstream.data(), count);
          for (int64_t bin = 0; bin < bins; ++bin) {
            const W* factors = upstream.data() + bin * count;
            scatter(factors, count, taps.begin(bin), taps.end(bin), channels, map.data() + begin);
          }
        }
      });
      map_to_planes(map.data(), sizes, output_data<T>(by_input) + image * channels * area);
    }
  });
  return {by_input, by_offset};
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CPU, m) {
  m.impl("deform_roi_pool", TORCH_BOX(&sdk::deform_roi_pool));
  m.impl("deform_roi_pool_backward", TORCH_BOX(&sdk::deform_roi_pool_backward));
}
