// How corner pooling walks over a plane, for the CPU and CUDA kernels.
#pragma once

#include "common.h"

namespace sdk {

enum Direction : int64_t { TOP = 0, BOTTOM = 1, LEFT = 2, RIGHT = 3 };

inline void check_corner_pool_arguments(const Tensor& x, int64_t direction) {
  check_shape("x", x, {ANY, ANY, ANY, ANY});
  check_floating("x", x);
  check(direction >= TOP && direction <= RIGHT, "direction: expected 0 to 3, found ", direction);
}

// A plane is `lines` lines of `length` pixels. Line i starts at `first + i * line_step`, and goes on by `step`.
struct CornerPoolPlan {
  bool along_rows;
  int64_t lines, length, first, step, line_step;

  CornerPoolPlan(const Tensor& x, int64_t direction) : along_rows(direction == LEFT || direction == RIGHT) {
    const int64_t height = x.size(2), width = x.size(3);
    const bool backwards = direction == TOP || direction == LEFT;
    lines = along_rows ? height : width;
    length = along_rows ? width : height;
    line_step = along_rows ? width : 1;
    const int64_t forwards = along_rows ? 1 : width;
    step = backwards ? -forwards : forwards;
    first = backwards ? (length - 1) * forwards : 0;
  }
};

}  // namespace sdk
