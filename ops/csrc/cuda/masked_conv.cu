#include "../masked_conv.h"
#include "cuda.cuh"

// Kept positions are listed on the device, and an implicit matrix product runs over that list: blocks beyond its end,
// which only the device knows, leave at once.
//
// Shape letters: B images, C channels in, O channels out, H x W pixels in, h x w pixels out, KH x KW kernel.

namespace sdk {
namespace {

constexpr int TILE = 64;   // positions and channels out of one block
constexpr int DEPTH = 16;  // taps that a block holds at once
constexpr int EACH = 4;    // positions and channels out of one thread

// `positions` gets the kept pixels over all images in any order, `count` how many they are.
__global__ void list_kept(
    const bool* mask, MaskedConvSizes s, int64_t* positions, unsigned long long* count) {
  const int64_t pixels = s.out_height * s.out_width;
  SDK_FOR_EACH(i, s.batch * pixels) {
    if (mask[s.masks > 1 ? i : i % pixels]) {
      positions[atomicAdd(count, 1ull)] = i;
    }
  }
}

template <typename T>
__global__ void convolve(
    const T* x,
    const T* weight,
    const T* bias,
    const int64_t* positions,
    const unsigned long long* count,
    MaskedConvSizes s,
    T* out) {
  using W = Wide<T>;
  __shared__ W columns[DEPTH][TILE];
  __shared__ W kernels[DEPTH][TILE];
  const int64_t kept = static_cast<int64_t>(*count), pixels = s.out_height * s.out_width;
  const int64_t first_output = static_cast<int64_t>(blockIdx.y) * TILE;
  const int row = threadIdx.x / (TILE / EACH) * EACH, column = threadIdx.x % (TILE / EACH) * EACH;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * TILE; first < kept;
       first += static_cast<int64_t>(gridDim.x) * TILE) {
    W sums[EACH][EACH] = {};
    for (int64_t start = 0; start < s.taps; start += DEPTH) {
      for (int i = threadIdx.x; i < DEPTH * TILE; i += blockDim.x) {
        const int64_t tap = start + i / TILE, place = first + i % TILE, output = first_output + i % TILE;
        W value = 0;
        if (tap < s.taps && place < kept) {
          const int64_t at = positions[place], pixel = at % pixels, image = at / pixels;
          const int64_t kx = tap % s.kernel_width, ky = tap / s.kernel_width % s.kernel_height;
          const int64_t c = tap / s.kernel_width / s.kernel_height;
          const int64_t iy = pixel / s.out_width * s.step_y - s.pad_y + ky;
          const int64_t ix = pixel % s.out_width * s.step_x - s.pad_x + kx;
          if (iy >= 0 && iy < s.height && ix >= 0 && ix < s.width) {
            value = static_cast<W>(x[((image * s.channels + c) * s.height + iy) * s.width + ix]);
          }
        }
        columns[i / TILE][i % TILE] = value;
        kernels[i / TILE][i % TILE] =
            tap < s.taps && output < s.outputs ? static_cast<W>(weight[output * s.taps + tap]) : W(0);
      }
      __syncthreads();
      for (int tap = 0; tap < DEPTH; ++tap) {
        for (int i = 0; i < EACH; ++i) {
          for (int j = 0; j < EACH; ++j) {
            sums[i][j] = fma(kernels[tap][row + i], columns[tap][column + j], sums[i][j]);
          }
        }
      }
      __syncthreads();
    }
    for (int i = 0; i < EACH; ++i) {
      for (int j = 0; j < EACH; ++j) {
        const int64_t output = first_output + row + i, place = first + column + j;
        if (output < s.outputs && place < kept) {
          const int64_t at = positions[place];
          const W base = bias ? static_cast<W>(bias[output]) : W(0);
          out[(at / pixels * s.outputs + output) * pixels + at % pixels] = static_cast<T>(sums[i][j] + base);
        }
      }
    }
  }
}

Tensor masked_conv2d(
    const Tensor& x,
    const Tensor& mask,
    const Tensor& weight,
    const std::optional<Tensor>& bias,
    std::vector<int64_t> padding,
    std::vector<int64_t> stride) {
  static_assert(THREADS == (TILE / EACH) * (TILE / EACH));
  const MaskedConvSizes s(x, mask, weight, bias, padding, stride);
  const OnDevice device(x);
  const Tensor x_in = packed(x), mask_in = packed(mask), weight_in = packed(weight);
  const std::optional<Tensor> bias_in = packed(bias);
  const Tensor out = zeros(x, {s.batch, s.outputs, s.out_height, s.out_width});
  const int64_t places = s.batch * s.out_height * s.out_width;
  if (out.numel() == 0) {
    return out;
  }
  const Tensor positions = empty(x, {places}, ScalarType::Long), count = zeros(x, {1}, ScalarType::Long);
  unsigned long long* counter = output_data<unsigned long long>(count);
  list_kept<<<blocks_for(places), THREADS, 0, device.stream>>>(
      input_data<bool>(mask_in), s, output_data<int64_t>(positions), counter);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  constexpr int64_t MOST_ROWS = 65535;
  check((s.outputs + TILE - 1) / TILE <= MOST_ROWS, "weight: expected less than ", MOST_ROWS * TILE, " outputs");
  const dim3 grid(blocks_for(places, TILE), static_cast<unsigned int>((s.outputs + TILE - 1) / TILE));
  for_floating(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    convolve<<<grid, THREADS, 0, device.stream>>>(
        input_data<T>(x_in),
        input_data<T>(weight_in),
        bias_in ? input_data<T>(*bias_in) : nullptr,
        input_data<int64_t>(positions),
        counter,
        s,
        output_data<T>(out));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CUDA, m) {
  m.impl("masked_conv2d", TORCH_BOX(&sdk::masked_conv2d));
}
