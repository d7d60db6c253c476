#include "cpu.h"

#include "../carafe.h"

#include <algorithm>
#include <vector>

// Shape letters: B images, C channels, H x W pixels, s scale, k kernel size, r = k / 2, G groups.
//
// A row of features with r zeros on both sides, each value s times, is "widened": tap j of output pixel x lies at
// x + j * s of it, so that every tap is one product of two contiguous rows. The kernels of the s output rows of one
// feature row stay in cache over all channels of a group.

namespace sdk {
namespace {

// The sizes with the length of a widened row.
struct Sizes : CarafeSizes {
  int64_t wide;

  explicit Sizes(const CarafeSizes& sizes) : CarafeSizes(sizes), wide((width + 2 * radius) * scale) {}
};

template <typename T, typename W>
void widen_row(const T* row, const Sizes& sizes, W* out) {
  W* place = std::fill_n(out, sizes.radius * sizes.scale, W{0});
  for (int64_t x = 0; x < sizes.width; ++x) {
    place = std::fill_n(place, sizes.scale, static_cast<W>(row[x]));
  }
  std::fill_n(place, sizes.radius * sizes.scale, W{0});
}

// The k widened rows around feature row y; zero where they leave the map.
template <typename T, typename W>
void widen_rows(const T* plane, int64_t y, const Sizes& sizes, W* out) {
  for (int64_t i = 0; i < sizes.kernel; ++i, out += sizes.wide) {
    const int64_t row = y + i - sizes.radius;
    if (row < 0 || row >= sizes.height) {
      std::fill_n(out, sizes.wide, W{0});
    } else {
      widen_row(plane + row * sizes.width, sizes, out);
    }
  }
}

// The kernels (k * k, W * s) of one output row.
template <typename T, typename W>
void load_kernels(const T* masks, int64_t row, const Sizes& sizes, W* out) {
  for (int64_t tap = 0; tap < sizes.kernel * sizes.kernel; ++tap) {
    const T* source = masks + (tap * sizes.out_height + row) * sizes.out_width;
    out = std::transform(source, source + sizes.out_width, out, [](T value) { return static_cast<W>(value); });
  }
}

template <typename T, typename W>
SDK_SIMD void reassemble_row(
    const W* __restrict kernels, const W* __restrict wide, int64_t kernel, int64_t scale, int64_t wide_width,
    int64_t width, T* __restrict out) {
  constexpr int64_t TILE = 64;  // sums that stay in registers
  for (int64_t start = 0; start < width; start += TILE) {
    W sums[TILE] = {};
    const int64_t count = std::min(TILE, width - start);
    for (int64_t i = 0; i < kernel; ++i) {
      for (int64_t j = 0; j < kernel; ++j) {
        const W* k = kernels + (i * kernel + j) * width + start;
        const W* f = wide + i * wide_width + j * scale + start;
        if (count == TILE) {
          for (int64_t x = 0; x < TILE; ++x) {
            sums[x] += k[x] * f[x];
          }
        } else {
          for (int64_t x = 0; x < count; ++x) {
            sums[x] += k[x] * f[x];
          }
        }
      }
    }
    for (int64_t x = 0; x < count; ++x) {
      out[start + x] = static_cast<T>(sums[x]);
    }
  }
}

// sums[i] += a[i] * b[i]
template <typename W>
SDK_SIMD void add_product(const W* __restrict a, const W* __restrict b, int64_t count, W* __restrict sums) {
  for (int64_t i = 0; i < count; ++i) {
    sums[i] += a[i] * b[i];
  }
}

Tensor carafe(const Tensor& features, const Tensor& masks, int64_t kernel_size, int64_t groups, int64_t scale) {
  const Sizes sizes(CarafeSizes(features, masks, kernel_size, groups, scale));
  const Tensor features_in = packed(features), masks_in = packed(masks);
  const Tensor out = empty(features_in, {sizes.batch, sizes.channels, sizes.out_height, sizes.out_width});
  if (out.numel() == 0) {
    return out;
  }
  const int64_t taps = kernel_size * kernel_size;
  for_floating(features.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    const T* input = input_data<T>(features_in);
    const T* kernels_in = input_data<T>(masks_in);
    T* result = output_data<T>(out);
    const int64_t cost = sizes.per_group * taps * sizes.scale * sizes.out_width;
    const int64_t tasks = sizes.batch * groups * sizes.height;
    parallel_for(0, tasks, grain(cost), [&](int64_t begin, int64_t end) {
      std::vector<W> kernels(sizes.scale * taps * sizes.out_width), wide(sizes.kernel * sizes.wide);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t y = task % sizes.height, group = task / sizes.height;  // over all images
        const T* group_masks = kernels_in + group * taps * sizes.out_height * sizes.out_width;
        for (int64_t s = 0; s < sizes.scale; ++s) {
          load_kernels(group_masks, y * sizes.scale + s, sizes, kernels.data() + s * taps * sizes.out_width);
        }
        for (int64_t c = group * sizes.per_group; c < (group + 1) * sizes.per_group; ++c) {
          widen_rows(input + c * sizes.height * sizes.width, y, sizes, wide.data());
          for (int64_t s = 0; s < sizes.scale; ++s) {
            reassemble_row(
                kernels.data() + s * taps * sizes.out_width,
                wide.data(),
                sizes.kernel,
                sizes.scale,
                sizes.wide,
                sizes.out_width,
                result + (c * sizes.out_height + y * sizes.scale + s) * sizes.out_width);
          }
        }
      }
    });
  });
  return out;
}

// Row y of the features is read by the output rows whose windows hold it: each task sums up one row of gradients.
template <typename T>
void features_backward(const T* upstream, const T* kernels_in, const Sizes& sizes, T* result) {
  using W = Wide<T>;
  const int64_t taps = sizes.kernel * sizes.kernel, row_kernels = taps * sizes.out_width;
  const int64_t cost = sizes.per_group * taps * sizes.scale * sizes.out_width;
  parallel_for(0, sizes.batch * sizes.groups * sizes.height, grain(cost), [&](int64_t begin, int64_t end) {
    // Of the output rows that read row y, the k kernels (j) that do so.
    std::vector<W> kernels(sizes.kernel * sizes.scale * sizes.kernel * sizes.out_width);
    std::vector<W> grad(sizes.out_width), wide(sizes.wide);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t y = task % sizes.height, group = task / sizes.height;
      const T* group_masks = kernels_in + group * row_kernels * sizes.out_height;
      const int64_t first = std::max<int64_t>(0, y - sizes.radius);
      const int64_t last = std::min(sizes.height - 1, y + sizes.radius);
      W* place = kernels.data();
      for (int64_t row = first * sizes.scale; row < (last + 1) * sizes.scale; ++row) {
        const int64_t i = y - row / sizes.scale + sizes.radius;
        for (int64_t j = 0; j < sizes.kernel; ++j) {
          const T* source = group_masks + ((i * sizes.kernel + j) * sizes.out_height + row) * sizes.out_width;
          place = std::transform(source, source + sizes.out_width, place, [](T v) { return static_cast<W>(v); });
        }
      }
      for (int64_t c = group * sizes.per_group; c < (group + 1) * sizes.per_group; ++c) {
        std::fill(wide.begin(), wide.end(), W{0});
        const W* kernel = kernels.data();
        for (int64_t row = first * sizes.scale; row < (last + 1) * sizes.scale; ++row) {
          const T* source = upstream + (c * sizes.out_height + row) * sizes.out_width;
          std::transform(source, source + sizes.out_width, grad.begin(), [](T v) { return static_cast<W>(v); });
          for (int64_t j = 0; j < sizes.kernel; ++j, kernel += sizes.out_width) {
            add_product(kernel, grad.data(), sizes.out_width, wide.data() + j * sizes.scale);
          }
        }
        T* out = result + (c * sizes.height + y) * sizes.width;
        for (int64_t x = 0; x < sizes.width; ++x) {
          W sum = 0;
          for (int64_t s = 0; s < sizes.scale; ++s) {
            sum += wide[(x + sizes.radius) * sizes.scale + s];
          }
          out[x] = static_cast<T>(sum);
        }
      }
    }
  });
}

template <typename T>
void masks_backward(const T* upstream, const T* input, const Sizes& sizes, T* result) {
  using W = Wide<T>;
  const int64_t taps = sizes.kernel * sizes.kernel, row_kernels = taps * sizes.out_width;
  const int64_t cost = sizes.per_group * taps * sizes.scale * sizes.out_width;
  parallel_for(0, sizes.batch * sizes.groups * sizes.height, grain(cost), [&](int64_t begin, int64_t end) {
    std::vector<W> sums(sizes.scale * row_kernels), grad(sizes.out_width), wide(sizes.kernel * sizes.wide);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t y = task % sizes.height, group = task / sizes.height;
      std::fill(sums.begin(), sums.end(), W{0});
      for (int64_t c = group * sizes.per_group; c < (group + 1) * sizes.per_group; ++c) {
        widen_rows(input + c * sizes.height * sizes.width, y, sizes, wide.data());
        W* sum = sums.data();
        for (int64_t s = 0; s < sizes.scale; ++s) {
          const T* source = upstream + (c * sizes.out_height + y * sizes.scale + s) * sizes.out_width;
          std::transform(source, source + sizes.out_width, grad.begin(), [](T v) { return static_cast<W>(v); });
          for (int64_t tap = 0; tap < taps; ++tap, sum += sizes.out_width) {
            const int64_t i = tap / sizes.kernel, j = tap % sizes.kernel;
            add_product(wide.data() + i * sizes.wide + j * sizes.scale, grad.data(), sizes.out_width, sum);
          }
        }
      }
      const W* sum = sums.data();
      for (int64_t s = 0; s < sizes.scale; ++s) {
        for (int64_t tap = 0; tap < taps; ++tap, sum += sizes.out_width) {
          const int64_t row = (group * taps + tap) * sizes.out_height + y * sizes.scale + s;
          std::transform(
              sum, sum + sizes.out_width, result + row * sizes.out_width, [](W v) { return static_cast<T>(v); });
        }
      }
    }
  });
}

std::tuple<Tensor, Tensor> carafe_backward(
    const Tensor& grad,
    const Tensor& features,
    const Tensor& masks,
    int64_t kernel_size,
    int64_t groups,
    int64_t scale) {
  const Sizes sizes(CarafeSizes(features, masks, kernel_size, groups, scale));
  sizes.check_grad(grad, features);
  const Tensor grad_in = packed(grad), features_in = packed(features), masks_in = packed(masks);
  const Tensor by_features = zeros(features_in, {sizes.batch, sizes.channels, sizes.height, sizes.width});
  const Tensor by_masks =
      zeros(masks_in, {sizes.batch, groups * kernel_size * kernel_size, sizes.out_height, sizes.out_width});
  if (grad.numel() == 0) {
    return {by_features, by_masks};
  }
  for_floating(features.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* upstream = input_data<T>(grad_in);
    features_backward(upstream, input_data<T>(masks_in), sizes, output_data<T>(by_features));
    masks_backward(upstream, input_data<T>(features_in), sizes, output_data<T>(by_masks));
  });
  return {by_features, by_masks};
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CPU, m) {
  m.impl("carafe", TORCH_BOX(&sdk::carafe));
  m.impl("carafe_backward", TORCH_BOX(&sdk::carafe_backward));
}
