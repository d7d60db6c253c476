#include "../overlaps.h"
#include "cuda.cuh"

namespace sdk {
namespace {

template <typename T, int64_t KIND>
__global__ void pairwise(const T* a, const T* b, int64_t rows, int64_t columns, Wide<T> eps, T* out) {
  using W = Wide<T>;
  SDK_FOR_EACH(i, rows * columns) {
    const Box<W> one = load_box<W>(a + 4 * (i / columns)), other = load_box<W>(b + 4 * (i % columns));
    out[i] = static_cast<T>(overlap_of<KIND>(one, other, eps));
  }
}

// One block sums the gradient of one box over all boxes of the other side, in a fixed order.
template <typename T, int64_t KIND, bool OF_A>
__global__ void pairwise_backward(
    const T* grad, const T* a, const T* b, int64_t rows, int64_t columns, Wide<T> eps, T* out) {
  using W = Wide<T>;
  for (int64_t own = blockIdx.x; own < (OF_A ? rows : columns); own += gridDim.x) {
    Box<W> sum{0, 0, 0, 0};
    for (int64_t other = threadIdx.x; other < (OF_A ? columns : rows); other += blockDim.x) {
      const int64_t row = OF_A ? own : other, column = OF_A ? other : own;
      const BoxGradients<W> g = overlap_gradients<KIND>(
          load_box<W>(a + 4 * row), load_box<W>(b + 4 * column), eps, static_cast<W>(grad[row * columns + column]));
      const Box<W>& part = OF_A ? g.a : g.b;
      sum.x1 += part.x1;
      sum.y1 += part.y1;
      sum.x2 += part.x2;
      sum.y2 += part.y2;
    }
    const Box<W> total{block_sum(sum.x1), block_sum(sum.y1), block_sum(sum.x2), block_sum(sum.y2)};
    if (threadIdx.x == 0) {
      store_box(total, out + 4 * own);
    }
  }
}

Tensor pairwise_iou(const Tensor& a, const Tensor& b, int64_t kind, double eps) {
  check_overlap_arguments(a, b, kind, eps);
  const int64_t rows = a.size(0), columns = b.size(0);
  const OnDevice device(a);
  const Tensor a_in = packed(a), b_in = packed(b), out = empty(a, {rows, columns});
  if (out.numel() == 0) {
    return out;
  }
  for_floating(a.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    for_kind(kind, [&](auto constant) {
      pairwise<T, decltype(constant)::value><<<blocks_for(rows * columns), THREADS, 0, device.stream>>>(
          input_data<T>(a_in), input_data<T>(b_in), rows, columns, static_cast<Wide<T>>(eps), output_data<T>(out));
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  return out;
}

std::tuple<Tensor, Tensor> pairwise_iou_backward(
    const Tensor& grad, const Tensor& a, const Tensor& b, int64_t kind, double eps) {
  check_overlap_arguments(a, b, kind, eps);
  const int64_t rows = a.size(0), columns = b.size(0);
  check_shape("grad", grad, {rows, columns});
  check_like("grad", grad, a);
  const OnDevice device(a);
  const Tensor grad_in = packed(grad), a_in = packed(a), b_in = packed(b);
  const Tensor by_a = zeros(a, {rows, 4}), by_b = zeros(b, {columns, 4});
  if (rows == 0 || columns == 0) {
    return {by_a, by_b};
  }
  for_floating(a.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* upstream = input_data<T>(grad_in);
    const T* ones = input_data<T>(a_in);
    const T* others = input_data<T>(b_in);
    const Wide<T> least = static_cast<Wide<T>>(eps);
    for_kind(kind, [&](auto constant) {
      constexpr int64_t KIND = decltype(constant)::value;
      pairwise_backward<T, KIND, true><<<blocks_for(rows, 1), THREADS, 0, device.stream>>>(
          upstream, ones, others, rows, columns, least, output_data<T>(by_a));
      STD_CUDA_KERNEL_LAUNCH_CHECK();
      pairwise_backward<T, KIND, false><<<blocks_for(columns, 1), THREADS, 0, device.stream>>>(
          upstream, ones, others, rows, columns, least, output_data<T>(by_b));
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  return {by_a, by_b};
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CUDA, m) {
  m.impl("pairwise_iou", TORCH_BOX(&sdk::pairwise_iou));
  m.impl("pairwise_iou_backward", TORCH_BOX(&sdk::pairwise_iou_backward));
}
