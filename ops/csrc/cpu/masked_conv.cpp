#include "cpu.h"

#include "../masked_conv.h"

#include <algorithm>
#include <vector>

// Kept positions are gathered into columns (C * KH * KW, P), multiplied by the weight (O, C * KH * KW), and the
// products (O, P) scattered back: the work is in proportion to what the mask keeps.
//
// Shape letters: B images, C channels in, O channels out, H x W pixels in, h x w pixels out, KH x KW kernel,
// P kept positions of one block.

namespace sdk {
namespace {

// Columns of this many bytes at most are gathered at once.
constexpr int64_t BLOCK_BYTES = int64_t{1} << 24;

template <typename T>
void gather_columns(const T* image, const int64_t* positions, int64_t count, const MaskedConvSizes& sizes, T* columns) {
  parallel_for(0, sizes.taps, grain(4 * count), [&](int64_t begin, int64_t end) {
    for (int64_t tap = begin; tap < end; ++tap) {
      const int64_t kx = tap % sizes.kernel_width, ky = tap / sizes.kernel_width % sizes.kernel_height;
      const T* plane = image + tap / (sizes.kernel_width * sizes.kernel_height) * sizes.height * sizes.width;
      T* column = columns + tap * count;
      for (int64_t p = 0; p < count; ++p) {
        const int64_t y = positions[p] / sizes.out_width * sizes.step_y - sizes.pad_y + ky;
        const int64_t x = positions[p] % sizes.out_width * sizes.step_x - sizes.pad_x + kx;
        const bool inside = y >= 0 && y < sizes.height && x >= 0 && x < sizes.width;
        column[p] = inside ? plane[y * sizes.width + x] : static_cast<T>(0.0f);
      }
    }
  });
}

Tensor masked_conv2d(
    const Tensor& x,
    const Tensor& mask,
    const Tensor& weight,
    const std::optional<Tensor>& bias,
    std::vector<int64_t> padding,
    std::vector<int64_t> stride) {
  const MaskedConvSizes sizes(x, mask, weight, bias, padding, stride);
  const Tensor x_in = packed(x), mask_in = packed(mask);
  const Tensor matrix = torch::stable::reshape(weight, {{sizes.outputs, sizes.taps}});
  const std::optional<Tensor> bias_in = packed(bias);
  const Tensor out = zeros(x_in, {sizes.batch, sizes.outputs, sizes.out_height, sizes.out_width});
  const int64_t pixels = sizes.out_height * sizes.out_width;
  const bool* kept = input_data<bool>(mask_in);
  for_floating(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    const T* added = bias_in ? input_data<T>(*bias_in) : nullptr;
    const int64_t block = std::max<int64_t>(64, BLOCK_BYTES / static_cast<int64_t>(sizeof(T)) / (sizes.taps + 1));
    std::vector<int64_t> positions;
    for (int64_t image = 0; image < sizes.batch; ++image) {
      if (image == 0 || sizes.masks > 1) {
        positions.clear();
        for (int64_t p = 0; p < pixels; ++p) {
          if (kept[(sizes.masks > 1 ? image : 0) * pixels + p]) {
            positions.push_back(p);
          }
        }
      }
      const int64_t total = static_cast<int64_t>(positions.size());
      T* planes = output_data<T>(out) + image * sizes.outputs * pixels;
      for (int64_t start = 0; start < total; start += block) {
        const int64_t count = std::min(block, total - start);
        const Tensor columns = empty(x_in, {sizes.taps, count});
        gather_columns(
            input_data<T>(x_in) + image * sizes.channels * sizes.height * sizes.width,
            positions.data() + start,
            count,
            sizes,
            output_data<T>(columns));
        const Tensor product = contiguous(torch::stable::matmul(matrix, columns));
        const T* values = input_data<T>(product);
        parallel_for(0, sizes.outputs, grain(2 * count), [&](int64_t begin, int64_t end) {
          for (int64_t o = begin; o < end; ++o) {
            const W base = added ? static_cast<W>(added[o]) : W(0);
            for (int64_t p = 0; p < count; ++p) {
              planes[o * pixels + positions[start + p]] =
                  static_cast<T>(static_cast<W>(values[o * count + p]) + base);
            }
          }
        });
      }
    }
  });
  return out;
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CPU, m) {
  m.impl("masked_conv2d", TORCH_BOX(&sdk::masked_conv2d));
}
