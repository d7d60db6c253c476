// Argument checks of the focal loss, for the CPU and CUDA kernels.
#pragma once

#include "common.h"

namespace sdk {

inline void check_focal_arguments(
    const Tensor& logits, const Tensor& labels, double gamma, double alpha, const std::optional<Tensor>& weight) {
  check_shape("logits", logits, {ANY, ANY});
  check_floating("logits", logits);
  check_shape("labels", labels, {logits.size(0)});
  check_integer("labels", labels, logits);
  check_number("gamma", gamma, gamma >= 0, "a number of at least 0");
  check_number("alpha", alpha, alpha == alpha, "a number");
  if (weight) {
    check_shape("weight", *weight, {logits.size(0)});
    check_like("weight", *weight, logits);
  }
}

}  // namespace sdk
