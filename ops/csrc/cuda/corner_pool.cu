#include "../corner_pool.h"
#include "cuda.cuh"

namespace sdk {
namespace {

// One thread walks one line. A maximum holds for a run of outputs, so its gradient is written once.
template <typename T>
__global__ void pool(const T* input, int64_t planes, CornerPoolPlan plan, T* out) {
  using W = Wide<T>;
  SDK_FOR_EACH(i, planes * plan.lines) {
    const int64_t start = i / plan.lines * plan.lines * plan.length + plan.first + i % plan.lines * plan.line_step;
    W best = static_cast<W>(input[start]);
    for (int64_t k = 0; k < plan.length; ++k) {
      const W value = static_cast<W>(input[start + k * plan.step]);
      best = value != value || value >= best ? value : best;
      out[start + k * plan.step] = static_cast<T>(best);
    }
  }
}

template <typename T>
__global__ void pool_backward(const T* grad, const T* input, int64_t planes, CornerPoolPlan plan, T* out) {
  using W = Wide<T>;
  SDK_FOR_EACH(i, planes * plan.lines) {
    const int64_t start = i / plan.lines * plan.lines * plan.length + plan.first + i % plan.lines * plan.line_step;
    W best = static_cast<W>(input[start]), sum = 0;
    int64_t source = start;
    for (int64_t k = 0; k < plan.length; ++k) {
      const int64_t at = start + k * plan.step;
      const W value = static_cast<W>(input[at]);
      if (value != value || value >= best) {
        out[source] = static_cast<T>(sum);
        best = value;
        source = at;
        sum = 0;
      }
      sum += static_cast<W>(grad[at]);
    }
    out[source] = static_cast<T>(sum);
  }
}

Tensor corner_pool(const Tensor& x, int64_t direction) {
  check_corner_pool_arguments(x, direction);
  const OnDevice device(x);
  const Tensor x_in = packed(x), out = empty(x, {x.size(0), x.size(1), x.size(2), x.size(3)});
  if (x.numel() == 0) {
    return out;
  }
  const CornerPoolPlan plan(x, direction);
  const int64_t planes = x.size(0) * x.size(1);
  for_floating(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    pool<<<blocks_for(planes * plan.lines), THREADS, 0, device.stream>>>(
        input_data<T>(x_in), planes, plan, output_data<T>(out));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

Tensor corner_pool_backward(const Tensor& grad, const Tensor& x, int64_t direction) {
  check_corner_pool_arguments(x, direction);
  check_shape("grad", grad, {x.size(0), x.size(1), x.size(2), x.size(3)});
  check_like("grad", grad, x);
  const OnDevice device(x);
  const Tensor grad_in = packed(grad), x_in = packed(x);
  const Tensor out = zeros(x, {x.size(0), x.size(1), x.size(2), x.size(3)});
  if (x.numel() == 0) {
    return out;
  }
  const CornerPoolPlan plan(x, direction);
  const int64_t planes = x.size(0) * x.size(1);
  for_floating(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    pool_backward<<<blocks_for(planes * plan.lines), THREADS, 0, device.stream>>>(
        input_data<T>(grad_in), input_data<T>(x_in), planes, plan, output_data<T>(out));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CUDA, m) {
  m.impl("corner_pool", TORCH_BOX(&sdk::corner_pool));
  m.impl("corner_pool_backward", TORCH_BOX(&sdk::corner_pool_backward));
}
