#include "cpu.h"

#include "../focal_loss.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

// With s the logit of what should have been said, p = sigmoid(s) and softplus(x) = log(1 + e^x):
//   loss = -(1 - p)^gamma log p = e^(-gamma softplus(s)) softplus(-s)
// Everything is exponentials and log(1 + x) of numbers up to 1, written here so that compilers vectorize them.

namespace sdk {
namespace {

// e^x for x <= 0, 0 for NaN or less than -87: x = n log 2 + r, a polynomial in r (Taylor to the 7th power,
// |r| <= 0.35), times 2^n.
inline __attribute__((always_inline)) float exp_negative(float x) {
  const float clamped = x > -87.0f ? x : -87.0f;
  const float n = static_cast<float>(static_cast<int32_t>(clamped * 1.44269504f - 0.5f));
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float value = 1.0f / 5040;
  value = value * r + 1.0f / 720;
  value = value * r + 1.0f / 120;
  value = value * r + 1.0f / 24;
  value = value * r + 1.0f / 6;
  value = value * r + 0.5f;
  value = value * r + 1.0f;
  value = value * r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  return value * scale;
}

// log(1 + z) for z in [0, 1], as 2 artanh(z / (2 + z)).
inline __attribute__((always_inline)) float log_one_plus(float z) {
  const float s = z / (2.0f + z), q = s * s;
  float value = 1.0f / 15;
  value = value * q + 1.0f / 13;
  value = value * q + 1.0f / 11;
  value = value * q + 1.0f / 9;
  value = value * q + 1.0f / 7;
  value = value * q + 1.0f / 5;
  value = value * q + 1.0f / 3;
  value = value * q + 1.0f;
  return 2.0f * s * value;
}

inline double exp_negative(double x) {
  return std::exp(x);
}

inline double log_one_plus(double z) {
  return std::log1p(z);
}

template <typename W>
struct Focal {
  W loss, gradient;  // of the positive side, by s
};

template <typename W>
inline __attribute__((always_inline)) Focal<W> focal(W s, W gamma) {
  const W magnitude = s < 0 ? -s : s;
  const W decay = exp_negative(-magnitude);
  const W tail = log_one_plus(decay);
  // NaN is not above 0, and stays.
  const W wrong_cost = (s > 0 ? W(0) : -s) + tail;  // softplus(-s) = -log p
  const W right_cost = (s > 0 ? s : W(0)) + tail;   // softplus(s) = -log(1 - p)
  const W larger = W(1) / (W(1) + decay), smaller = decay * larger;
  const W p = s < 0 ? smaller : larger, rest = s < 0 ? larger : smaller;
  // Bounded, as gamma may be 0 and the cost infinite.
  constexpr W MOST = std::numeric_limits<W>::max();
  const W damping = exp_negative(-gamma * (right_cost < MOST ? right_cost : MOST));
  return {damping * wrong_cost, -damping * (gamma * p * wrong_cost + rest)};
}

// `label` is the class of the prediction, or `classes` for background.
template <typename T, typename W = Wide<T>>
SDK_SIMD void loss_of_row(
    const T* __restrict logits, int64_t classes, int64_t label, W gamma, W alpha, W weight, T* __restrict out) {
  const W balance = (W(1) - alpha) * weight;
  for (int64_t k = 0; k < classes; ++k) {
    out[k] = static_cast<T>(balance * focal(-static_cast<W>(logits[k]), gamma).loss);
  }
  if (label < classes) {
    out[label] = static_cast<T>(alpha * weight * focal(static_cast<W>(logits[label]), gamma).loss);
  }
}

// Writes the gradient by the logits and returns that by the weight.
template <typename T, typename W = Wide<T>>
SDK_SIMD W gradient_of_row(
    const T* __restrict logits,
    const T* __restrict grad,
    int64_t classes,
    int64_t label,
    W gamma,
    W alpha,
    W weight,
    T* __restrict out) {
  W by_weight = 0;
  const W balance = W(1) - alpha;
#pragma omp simd reduction(+ : by_weight)
  for (int64_t k = 0; k < classes; ++k) {
    const Focal<W> negative = focal(-static_cast<W>(logits[k]), gamma);
    const W upstream = static_cast<W>(grad[k]);
    out[k] = static_cast<T>(-balance * weight * upstream * negative.gradient);
    by_weight += k == label ? W(0) : balance * upstream * negative.loss;
  }
  if (label < classes) {
    const Focal<W> positive = focal(static_cast<W>(logits[label]), gamma);
    const W upstream = static_cast<W>(grad[label]);
    out[label] = static_cast<T>(alpha * weight * upstream * positive.gradient);
    by_weight += alpha * upstream * positive.loss;
  }
  return by_weight;
}

void check_labels(const Tensor& labels, int64_t classes) {
  const int64_t* values = input_data<int64_t>(labels);
  for (int64_t i = 0; i < labels.size(0); ++i) {
    check(values[i] >= 0 && values[i] <= classes, "labels: expected values from 0 to ", classes, ", found ", values[i]);
  }
}

// Exponentials cost about this many simple operations.
constexpr int64_t COST = 32;

Tensor sigmoid_focal_loss(
    const Tensor& logits, const Tensor& labels, double gamma, double alpha, const std::optional<Tensor>& weight) {
  check_focal_arguments(logits, labels, gamma, alpha, weight);
  const int64_t rows = logits.size(0), classes = logits.size(1);
  const Tensor logits_in = packed(logits), labels_in = packed(labels);
  const std::optional<Tensor> weight_in = packed(weight);
  check_labels(labels_in, classes);
  const Tensor out = empty(logits_in, {rows, classes});
  for_floating(logits.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    const T* values = input_data<T>(logits_in);
    const int64_t* targets = input_data<int64_t>(labels_in);
    const T* factors = weight_in ? input_data<T>(*weight_in) : nullptr;
    T* result = output_data<T>(out);
    parallel_for(0, rows, grain(COST * classes), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const W factor = factors ? static_cast<W>(factors[n]) : W(1);
        loss_of_row(
            values + n * classes,
            classes,
            targets[n],
            static_cast<W>(gamma),
            static_cast<W>(alpha),
            factor,
            result + n * classes);
      }
    });
  });
  return out;
}

// Gradients by the logits (N, K) and by the weight (N,).
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
  const Tensor grad_in = packed(grad), logits_in = packed(logits), labels_in = packed(labels);
  const std::optional<Tensor> weight_in = packed(weight);
  check_labels(labels_in, classes);
  const Tensor by_logits = empty(logits_in, {rows, classes});
  const Tensor by_weight = empty(logits_in, {rows});
  for_floating(logits.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    const T* values = input_data<T>(logits_in);
    const T* upstream = input_data<T>(grad_in);
    const int64_t* targets = input_data<int64_t>(labels_in);
    const T* factors = weight_in ? input_data<T>(*weight_in) : nullptr;
    T* result = output_data<T>(by_logits);
    T* sums = output_data<T>(by_weight);
    parallel_for(0, rows, grain(COST * classes), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const W factor = factors ? static_cast<W>(factors[n]) : W(1);
        sums[n] = static_cast<T>(gradient_of_row(
            values + n * classes,
            upstream + n * classes,
            classes,
            targets[n],
            static_cast<W>(gamma),
            static_cast<W>(alpha),
            factor,
            result + n * classes));
      }
    });
  });
  return {by_logits, by_weight};
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CPU, m) {
  m.impl("sigmoid_focal_loss", TORCH_BOX(&sdk::sigmoid_focal_loss));
  m.impl("sigmoid_focal_loss_backward", TORCH_BOX(&sdk::sigmoid_focal_loss_backward));
}
