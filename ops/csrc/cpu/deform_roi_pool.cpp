#include "cpu.h"

#include "../deform_roi_pool.h"

#include <algorithm>
#include <vector>

// Shape letters: B images, C channels, H x W pixels of the feature map, K regions, P x Q bins of a region.

namespace sdk {
namespace {

// A corner that a bin reads: where in the plane, with which weight, and how that weight moves with the point.
template <typename W>
struct Tap {
  int64_t index;
  W weight, by_x, by_y;
};

// The taps of all bins of one region, bin after bin; those of bin i end at `ends[i]`.
template <typename W>
struct Taps {
  std::vector<Tap<W>> taps;
  std::vector<int64_t> ends;

  template <typename T>
  void find(const RoiGeometry<W>& roi, const T* offset, const RoiPoolSizes& sizes, W gamma) {
    const int64_t bins = sizes.rows * sizes.columns;
    taps.clear();
    ends.resize(bins);
    for (int64_t bin = 0; bin < bins; ++bin) {
      W x0 = roi.x + static_cast<W>(bin % sizes.columns) * roi.bin_width;
      W y0 = roi.y + static_cast<W>(bin / sizes.columns) * roi.bin_height;
      if (offset != nullptr) {
        x0 += gamma * roi.width * static_cast<W>(offset[bin]);
        y0 += gamma * roi.height * static_cast<W>(offset[bins + bin]);
      }
      for (int64_t i = 0; i < roi.grid_height; ++i) {
        const W y = y0 + (static_cast<W>(i) + W(0.5)) * roi.bin_height / static_cast<W>(roi.grid_height);
        for (int64_t j = 0; j < roi.grid_width; ++j) {
          const W x = x0 + (static_cast<W>(j) + W(0.5)) * roi.bin_width / static_cast<W>(roi.grid_width);
          add(RoiSample<W>(x, y, sizes.height, sizes.width), W(1) / roi.samples);
        }
      }
      ends[bin] = static_cast<int64_t>(taps.size());
    }
  }

 private:
  void add(const RoiSample<W>& s, W share) {
    if (!s.inside) {
      return;
    }
    const W dx = s.dx, dy = s.dy, slope_x = s.slope_x * share, slope_y = s.slope_y * share;
    taps.push_back({s.corner[0], (1 - dy) * (1 - dx) * share, -(1 - dy) * slope_x, -(1 - dx) * slope_y});
    taps.push_back({s.corner[1], (1 - dy) * dx * share, (1 - dy) * slope_x, -dx * slope_y});
    taps.push_back({s.corner[2], dy * (1 - dx) * share, -dy * slope_x, (1 - dx) * slope_y});
    taps.push_back({s.corner[3], dy * dx * share, dy * slope_x, dx * slope_y});
  }
};

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
    const T* features = input_data<T>(input_in);
    const T* boxes = input_data<T>(rois_in);
    const T* shifts = offset_in ? input_data<T>(*offset_in) : nullptr;
    T* result = output_data<T>(out);
    parallel_for(0, sizes.regions, grain(16 * sizes.channels * bins), [&](int64_t begin, int64_t end) {
      Taps<W> taps;
      for (int64_t n = begin; n < end; ++n) {
        const RoiGeometry<W> roi(boxes + 5 * n, sizes, static_cast<W>(spatial_scale));
        taps.find(roi, shifts ? shifts + 2 * n * bins : nullptr, sizes, static_cast<W>(gamma));
        for (int64_t c = 0; c < sizes.channels; ++c) {
          const T* plane = features + (roi.image * sizes.channels + c) * area;
          T* place = result + (n * sizes.channels + c) * bins;
          const Tap<W>* tap = taps.taps.data();
          for (int64_t bin = 0; bin < bins; ++bin) {
            W sum = 0;
            for (const Tap<W>* last = taps.taps.data() + taps.ends[bin]; tap != last; ++tap) {
              sum += tap->weight * static_cast<W>(plane[tap->index]);
            }
            place[bin] = static_cast<T>(sum);
          }
        }
      }
    });
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
  check_shape("grad", grad, {sizes.regions, sizes.channels, output_height, output_width});
  check_like("grad", grad, input);
  const Tensor grad_in = packed(grad), input_in = packed(input), rois_in = packed(rois);
  const std::optional<Tensor> offset_in = packed(offset);
  const Tensor by_input = empty(input_in, {sizes.batch, sizes.channels, sizes.height, sizes.width});
  const Tensor by_offset = empty(input_in, {offset ? sizes.regions : 0, 2, output_height, output_width});
  const int64_t bins = output_height * output_width, area = sizes.height * sizes.width;
  for_floating(input.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    check_rois<T>(rois_in, sizes, spatial_scale);
    const T* upstream = input_data<T>(grad_in);
    const T* features = input_data<T>(input_in);
    const T* boxes = input_data<T>(rois_in);
    const T* shifts = offset_in ? input_data<T>(*offset_in) : nullptr;
    T* result = output_data<T>(by_input);
    T* result_offset = output_data<T>(by_offset);
    std::vector<W> sums(sizes.batch * sizes.channels * area, W{0});
    // Regions are taken one after another, each by all threads, channel by channel: the order of the sums is fixed.
    Taps<W> taps;
    for (int64_t n = 0; n < sizes.regions; ++n) {
      const RoiGeometry<W> roi(boxes + 5 * n, sizes, static_cast<W>(spatial_scale));
      taps.find(roi, shifts ? shifts + 2 * n * bins : nullptr, sizes, static_cast<W>(gamma));
      const int64_t count = static_cast<int64_t>(taps.taps.size());
      parallel_for(0, sizes.channels, grain(2 * count), [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; ++c) {
          W* plane = sums.data() + (roi.image * sizes.channels + c) * area;
          const T* place = upstream + (n * sizes.channels + c) * bins;
          const Tap<W>* tap = taps.taps.data();
          for (int64_t bin = 0; bin < bins; ++bin) {
            const W factor = static_cast<W>(place[bin]);
            for (const Tap<W>* last = taps.taps.data() + taps.ends[bin]; tap != last; ++tap) {
              plane[tap->index] += tap->weight * factor;
            }
          }
        }
      });
      if (shifts == nullptr) {
        continue;
      }
      parallel_for(0, bins, grain(2 * count / bins * sizes.channels), [&](int64_t begin, int64_t end) {
        for (int64_t bin = begin; bin < end; ++bin) {
          const Tap<W>* first = taps.taps.data() + (bin > 0 ? taps.ends[bin - 1] : 0);
          const Tap<W>* last = taps.taps.data() + taps.ends[bin];
          W by_x = 0, by_y = 0;
          for (int64_t c = 0; c < sizes.channels; ++c) {
            const T* plane = features + (roi.image * sizes.channels + c) * area;
            const W factor = static_cast<W>(upstream[(n * sizes.channels + c) * bins + bin]);
            for (const Tap<W>* tap = first; tap != last; ++tap) {
              const W value = factor * static_cast<W>(plane[tap->index]);
              by_x += value * tap->by_x;
              by_y += value * tap->by_y;
            }
          }
          T* place = result_offset + 2 * n * bins + bin;
          place[0] = static_cast<T>(by_x * static_cast<W>(gamma) * roi.width);
          place[bins] = static_cast<T>(by_y * static_cast<W>(gamma) * roi.height);
        }
      });
    }
    std::transform(sums.begin(), sums.end(), result, [](W sum) { return static_cast<T>(sum); });
  });
  return {by_input, by_offset};
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CPU, m) {
  m.impl("deform_roi_pool", TORCH_BOX(&sdk::deform_roi_pool));
  m.impl("deform_roi_pool_backward", TORCH_BOX(&sdk::deform_roi_pool_backward));
}
