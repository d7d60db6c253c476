#include "cpu.h"

#include "../corner_pool.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace sdk {
namespace {

// Whether a pixel takes over from the maximum of those before it; NaN does and stays, as in cummax.
template <typename W>
inline __attribute__((always_inline)) bool takes_over(W value, W best) {
  return (value != value) | (value >= best);
}

// Lines are walked side by side, so that one line's wait for its last maximum is another's turn.
constexpr int64_t LANES = 64;

template <typename T, bool ROWS, typename W = Wide<T>>
SDK_SIMD void pool_lines(const T* __restrict input, T* __restrict out, const CornerPoolPlan& plan) {
  const int64_t line_step = ROWS ? plan.line_step : 1;
  for (int64_t first = 0; first < plan.lines; first += LANES) {
    const int64_t lanes = std::min(LANES, plan.lines - first);
    W best[LANES];
    std::fill_n(best, LANES, -std::numeric_limits<W>::infinity());
    for (int64_t i = 0; i < plan.length; ++i) {
      const int64_t at = plan.first + first * line_step + i * plan.step;
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const W value = static_cast<W>(input[at + lane * line_step]);
        best[lane] = takes_over(value, best[lane]) ? value : best[lane];
        out[at + lane * line_step] = static_cast<T>(best[lane]);
      }
    }
  }
}

// The gradient of each output goes to where its maximum came from.
template <typename T, bool ROWS, typename W = Wide<T>>
SDK_SIMD void scatter_lines(
    const T* __restrict input, const T* __restrict grad, W* __restrict sums, const CornerPoolPlan& plan) {
  const int64_t line_step = ROWS ? plan.line_step : 1;
  for (int64_t first = 0; first < plan.lines; first += LANES) {
    const int64_t lanes = std::min(LANES, plan.lines - first);
    W best[LANES];
    int64_t source[LANES];
    std::fill_n(best, LANES, -std::numeric_limits<W>::infinity());
    for (int64_t i = 0; i < plan.length; ++i) {
      const int64_t at = plan.first + first * line_step + i * plan.step;
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const W value = static_cast<W>(input[at + lane * line_step]);
        const bool taken = takes_over(value, best[lane]);
        source[lane] = taken ? at + lane * line_step : source[lane];
        best[lane] = taken ? value : best[lane];
      }
      for (int64_t lane = 0; lane < lanes; ++lane) {
        sums[source[lane]] += static_cast<W>(grad[at + lane * line_step]);
      }
    }
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
    const int64_t area = plan.lines * plan.length;
    parallel_for(0, x.size(0) * x.size(1), grain(area), [&](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane) {
        const auto pool = plan.along_rows ? &pool_lines<T, true> : &pool_lines<T, false>;
        pool(input + plane * area, result + plane * area, plan);
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
    const int64_t area = plan.lines * plan.length;
    parallel_for(0, x.size(0) * x.size(1), grain(area), [&](int64_t begin, int64_t end) {
      std::vector<W> sums(area);
      for (int64_t plane = begin; plane < end; ++plane) {
        std::fill(sums.begin(), sums.end(), W{0});
        const auto scatter = plan.along_rows ? &scatter_lines<T, true> : &scatter_lines<T, false>;
        scatter(input + plane * area, upstream + plane * area, sums.data(), plan);
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
