// Argument checks of NMS and soft-NMS, for the CPU and CUDA kernels.
#pragma once

#include "common.h"

namespace sdk {

enum Method : int64_t { HARD = 0, LINEAR = 1, GAUSSIAN = 2 };

inline void check_suppression_arguments(
    const Tensor& boxes, const Tensor& scores, const Tensor& groups, double iou_threshold) {
  check_shape("boxes", boxes, {ANY, 4});
  check_shape("scores", scores, {boxes.size(0)});
  check_shape("groups", groups, {boxes.size(0)});
  check_floating("boxes", boxes);
  check_like("scores", scores, boxes);
  check_integer("groups", groups, boxes);
  check_number("iou_threshold", iou_threshold, iou_threshold == iou_threshold, "a number");
}

inline void check_soft_arguments(double sigma, double min_score, int64_t method) {
  check_number("sigma", sigma, sigma > 0, "a number above 0");
  check_number("min_score", min_score, min_score == min_score, "a number");
  check(method >= HARD && method <= GAUSSIAN, "method: expected 0, 1 or 2, found ", method);
}

}  // namespace sdk
