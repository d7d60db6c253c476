#include "cpu.h"

#include "../corner_pool.h"

#include <algorithm>
#include <vector>

namespace sdk {
namespace {

// Each pixel along the line takes over the maximum `best` so far if it is at least that; NaN stays, as in cummax.
template <typename W>
inline __attribute__((always_inline)) bool takes_over(W value, W best) {
  return value != value || (best == best && value >= best);
}

// Carries maxima from one row (or pixel) to the next: `next` becomes max(next's input, previous).
template <typename T, typename W = Wide<T>>
SDK_SIMD void carry_row(const T* __restrict input, const T* __restrict previous, T* __restrict out, int64_t width) {
  for (int64_t x = 0; x < width; ++x) {
    const W value = static_cast<W>(input[x]), best = static_cast<W>(previous[x]);
    out[x] = takes_over(value, best) ? input[x] : previous[x];
  }
}

template <typename T>
void pool_line(const T* input, T* out, int64_t length, int64_t step) {
  T best = input[0];
  for (int64_t i = 0; i < length; ++i) {
    const T value = input[i * step];
    best = takes_over(static_cast<Wide<T>>(value), static_cast<Wide<T>>(best)) ? value : best;
    out[i * step] = best;
  }
}

template <typename T>
void pool_plane(const T* input, T* out, const CornerPoolPlan& plan) {
  if (plan.along_rows) {
    for (int64_t y = 0; y < plan.height; ++y) {
      const int64_t start = y * plan.width + plan.first;
      pool_line(input + start, out + start, plan.width, plan.step);
    }
    return;
  }
  int64_t row = plan.first;
  std::copy(input + row, input + row + plan.width, out + row);
  for (int64_t y = 1; y < plan.height; ++y) {
    carry_row(input + row + plan.step, out + row, out + row + plan.step, plan.width);
    row += plan.step;
  }
}

// The gradient of each output goes to where its maximum came from.
template <typename T, typename W = Wide<T>>
void scatter_line(const T* input, const T* grad, W* sums, int64_t length, int64_t step) {
  W best = static_cast<W>(input[0]);
  int64_t source = 0;
  for (int64_t i = 0; i < length; ++i) {
    const W value = static_cast<W>(input[i * step]);
    if (takes_over(value, best)) {
      best = value;
      source = i;
    }
    sums[source * step] += static_cast<W>(grad[i * step]);
  }
}

Tensor corner_pool(const Tensor& x, int64_t direction) {
  check_corner_pool_arguments(x, direction);
  const Tensor x_in = packed(x);
  const Tensor out = empty(x_in, {x.size(0), x.size(1), x.size(2), x.size(3)});
  if (x.numel() == 0) {
    return out;
  }
  const CornerPoolPlan plan(x, direction);
  for_floating(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* input = input_data<T>(x_in);
    T* result = output_data<T>(out);
    const int64_t area = plan.height * plan.width;
    parallel_for(0, x.size(0) * x.size(1), grain(area), [&](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane) {
        pool_plane(input + plane * area, result + plane * area, plan);
      }
    });
  });
  return out;
}

Tensor corner_pool_backward(const Tensor& grad, const Tensor& x, int64_t direction) {
  check_corner_pool_arguments(x, direction);
  check_shape("grad", grad, {x.size(0), x.size(1), x.size(2), x.size(3)});
  check_like("grad", grad, x);
  const Tensor grad_in = packed(grad), x_in = packed(x);
  const Tensor out = empty(x_in, {x.size(0), x.size(1), x.size(2), x.size(3)});
  if (x.numel() == 0) {
    return out;
  }
  const CornerPoolPlan plan(x, direction);
  for_floating(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    const T* input = input_data<T>(x_in);
    const T* upstream = input_data<T>(grad_in);
    T* result = output_data<T>(out);
    const int64_t area = plan.height * plan.width;
    parallel_for(0, x.size(0) * x.size(1), grain(area), [&](int64_t begin, int64_t end) {
      std::vector<W> sums(area);
      for (int64_t plane = begin; plane < end; ++plane) {
        std::fill(sums.begin(), sums.end(), W{0});
        for (int64_t line = 0; line < plan.lines; ++line) {
          const int64_t start = plan.first + line * plan.line_step;
          scatter_line(
              input + plane * area + start,
              upstream + plane * area + start,
              sums.data() + start,
              plan.length,
              plan.step);
        }
        for (int64_t i = 0; i < area; ++i) {
          result[plane * area + i] = static_cast<T>(sums[i]);
        }
      }
    });
  });
  return out;
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CPU, m) {
  m.impl("corner_pool", TORCH_BOX(&sdk::corner_pool));
  m.impl("corner_pool_backward", TORCH_BOX(&sdk::corner_pool_backward));
}
