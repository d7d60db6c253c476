#include "../focal_loss.h"
#include "cuda.cuh"

// The formula stands in cpu/focal_loss.cpp.

namespace sdk {
namespace {

template <typename W>
struct Focal {
  W loss, gradient;  // of the positive side, by s
};

template <typename W>
__device__ Focal<W> focal(W s, W gamma) {
  const W tail = log1p(exp(-fabs(s)));
  const W wrong_cost = (s > W(0) ? W(0) : -s) + tail;  // softplus(-s) = -log p
  const W right_cost = (s > W(0) ? s : W(0)) + tail;   // softplus(s) = -log(1 - p)
  const W p = exp(-wrong_cost), rest = exp(-right_cost);
  const W damping = gamma == W(0) ? W(1) : exp(-gamma * right_cost);
  return {damping * wrong_cost, -damping * (gamma * p * wrong_cost + rest)};
}

template <typename T>
__global__ void loss(
    const T* logits,
    const int64_t* labels,
    const T* weight,
    int64_t rows,
    int64_t classes,
    Wide<T> gamma,
    Wide<T> alpha,
    T* out) {
  using W = Wide<T>;
  SDK_FOR_EACH(i, rows * classes) {
    const bool positive = labels[i / classes] == i % classes;
    const W x = static_cast<W>(logits[i]);
    const W factor = weight ? static_cast<W>(weight[i / classes]) : W(1);
    const W balance = positive ? alpha : W(1) - alpha;
    out[i] = static_cast<T>(balance * factor * focal(positive ? x : -x, gamma).loss);
  }
}

// A block takes one prediction at a time: the gradient by its weight is a sum over the classes.
template <typename T>
__global__ void loss_backward(
    const T* grad,
    const T* logits,
    const int64_t* labels,
    const T* weight,
    int64_t rows,
    int64_t classes,
    Wide<T> gamma,
    Wide<T> alpha,
    T* by_logits,
    T* by_weight) {
  using W = Wide<T>;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const W factor = weight ? static_cast<W>(weight[row]) : W(1);
    W sum = 0;
    for (int64_t k = threadIdx.x; k < classes; k += blockDim.x) {
      const int64_t i = row * classes + k;
      const bool positive = labels[row] == k;
      const W x = static_cast<W>(logits[i]), upstream = static_cast<W>(grad[i]);
      const W balance = positive ? alpha : W(1) - alpha;
      const Focal<W> f = focal(positive ? x : -x, gamma);
      by_logits[i] = static_cast<T>((positive ? balance : -balance) * factor * upstream * f.gradient);
      sum += balance * upstream * f.loss;
    }
    const W total = block_sum(sum);
    if (threadIdx.x == 0) {
      by_weight[row] = static_cast<T>(total);
    }
  }
}

Tensor sigmoid_focal_loss(
    const Tensor& logits, const Tensor& labels, double gamma, double alpha, const std::optional<Tensor>& weight) {
  check_focal_arguments(logits, labels, gamma, alpha, weight);
  const int64_t rows = logits.size(0), classes = logits.size(1);
  const OnDevice device(logits);
  const Tensor logits_in = packed(logits), labels_in = packed(labels), out = empty(logits, {rows, classes});
  const std::optional<Tensor> weight_in = packed(weight);
  if (out.numel() == 0) {
    return out;
  }
  for_floating(logits.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    loss<<<blocks_for(rows * classes), THREADS, 0, device.stream>>>(
        input_data<T>(logits_in),
        input_data<int64_t>(labels_in),
        weight_in ? input_data<T>(*weight_in) : nullptr,
        rows,
        classes,
        static_cast<Wide<T>>(gamma),
        static_cast<Wide<T>>(alpha),
        output_data<T>(out));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

std::tuple<Tensor, Tensor> sigmoid_focal_loss_backward(
    const Tensor& grad,
    const Tensor& logits,
    const Tensor& labels,
    double gamma,
    double alpha,
    const std::optional<Tensor>& weight) {
  check_focal_arguments(logits, labels, gamma, alpha, weight);
  const int64_t rows = logits.size(0), classes = logits.size(1);
  check_shape("grad", grad, {rows, classes});
  check_like("grad", grad, logits);
  const OnDevice device(logits);
  const Tensor grad_in = packed(grad), logits_in = packed(logits), labels_in = packed(labels);
  const std::optional<Tensor> weight_in = packed(weight);
  const Tensor by_logits = empty(logits, {rows, classes}), by_weight = empty(logits, {rows});
  if (rows == 0) {
    return {by_logits, by_weight};
  }
  for_floating(logits.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    loss_backward<<<blocks_for(rows, 1), THREADS, 0, device.stream>>>(
        input_data<T>(grad_in),
        input_data<T>(logits_in),
        input_data<int64_t>(labels_in),
        weight_in ? input_data<T>(*weight_in) : nullptr,
        rows,
        classes,
        static_cast<Wide<T>>(gamma),
        static_cast<Wide<T>>(alpha),
        output_data<T>(by_logits),
        output_data<T>(by_weight));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {by_logits, by_weight};
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CUDA, m) {
  m.impl("sigmoid_focal_loss", TORCH_BOX(&sdk::sigmoid_focal_loss));
  m.impl("sigmoid_focal_loss_backward", TORCH_BOX(&sdk::sigmoid_focal_loss_backward));
}
