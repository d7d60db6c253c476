#include "cpu.h"

#include "../corner_pool.h"
#include "transpose.h"

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

// Lines are walked side by side, a band of them at a time, so that one vector instruction serves many. In columns such
// lanes are neighbours in memory; a band of rows is transposed, and becomes columns of a plane of its own.
constexpr int64_t LANES = 64;

// Columns of `length` pixels, side by side and `pitch` apart; walked upwards where `backwards`.
struct Band {
  int64_t lanes, length, pitch;
  bool backwards;

  int64_t row(int64_t i) const {
    return (backwards ? length - 1 - i : i) * pitch;
  }
};

template <typename T, typename W = Wide<T>>
SDK_SIMD void pool_band(const T* __restrict input, const Band band, T* __restrict out) {
  W best[LANES];
  std::fill_n(best, LANES, -std::numeric_limits<W>::infinity());
  for (int64_t i = 0; i < band.length; ++i) {
    const int64_t row = band.row(i);
    for (int64_t lane = 0; lane < band.lanes; ++lane) {
      const W value = static_cast<W>(input[row + lane]);
      best[lane] = takes_over(value, best[lane]) ? value : best[lane];
      out[row + lane] = static_cast<T>(best[lane]);
    }
  }
}

// A pixel that takes over gets the gradients of all outputs from its own to the last before the next such pixel: they
// are summed on the way back. `taken` is room for length x LANES marks.
template <typename T, typename W = Wide<T>>
SDK_SIMD void collect_band(
    const T* __restrict input,
    const T* __restrict grad,
    const Band band,
    uint8_t* __restrict taken,
    T* __restrict out) {
  W best[LANES], sum[LANES];
  std::fill_n(best, LANES, -std::numeric_limits<W>::infinity());
  std::fill_n(sum, LANES, W{0});
  for (int64_t i = 0; i < band.length; ++i) {
    const int64_t row = band.row(i);
    for (int64_t lane = 0; lane < band.lanes; ++lane) {
      const W value = static_cast<W>(input[row + lane]);
      const bool takes = takes_over(value, best[lane]);
      best[lane] = takes ? value : best[lane];
      taken[i * LANES + lane] = takes;
    }
  }
  for (int64_t i = band.length - 1; i >= 0; --i) {
    const int64_t row = band.row(i);
    for (int64_t lane = 0; lane < band.lanes; ++lane) {
      const bool takes = taken[i * LANES + lane] != 0;
      const W total = sum[lane] + static_cast<W>(grad[row + lane]);
      out[row + lane] = static_cast<T>(takes ? total : W{0});
      sum[lane] = takes ? W{0} : total;
    }
  }
}

// Memory is read and written line by line, in `room`, as tiles straight from it would wait for it longer.
template <typename T>
void rows_to_columns(const T* rows, int64_t lanes, int64_t length, T* room, T* columns) {
  std::copy_n(rows, lanes * length, room);
  transpose(room, length, lanes, length, columns, lanes);
}

template <typename T>
void columns_to_rows(const T* columns, int64_t lanes, int64_t length, T* room, T* rows) {
  transpose(columns, lanes, length, lanes, room, length);
  std::copy_n(room, lanes * length, rows);
}

Tensor corner_pool(const Tensor& x, int64_t direction) {
  check_corner_pool_arguments(x, direction);
  const Tensor x_in = packed(x);
  const Tensor out = empty(x_in, {x.size(0), x.size(1), x.size(2), x.size(3)});
  if (x.numel() == 0) {
    return out;
  }
  const CornerPoolPlan plan(x, direction);
  const int64_t length = plan.length, area = plan.lines * length;
  for_floating(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* inputs = input_data<T>(x_in);
    T* results = output_data<T>(out);
    parallel_for(0, x.size(0) * x.size(1), grain(area), [&](int64_t begin, int64_t end) {
      std::vector<T> columns(plan.along_rows ? LANES * length : 0), pooled(columns.size());
      for (int64_t plane = begin; plane < end; ++plane) {
        for (int64_t first = 0; first < plan.lines; first += LANES) {
          const int64_t lanes = std::min(LANES, plan.lines - first);
          const int64_t start = plane * area + first * plan.line_step;
          if (plan.along_rows) {
            rows_to_columns(inputs + start, lanes, length, pooled.data(), columns.data());
            pool_band(columns.data(), {lanes, length, lanes, plan.step < 0}, pooled.data());
            columns_to_rows(pooled.data(), lanes, length, columns.data(), results + start);
          } else {
            pool_band(inputs + start, {lanes, length, plan.lines, plan.step < 0}, results + start);
          }
        }
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
  const int64_t length = plan.length, area = plan.lines * length;
  for_floating(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* inputs = input_data<T>(x_in);
    const T* upstreams = input_data<T>(grad_in);
    T* results = output_data<T>(out);
    parallel_for(0, x.size(0) * x.size(1), grain(area), [&](int64_t begin, int64_t end) {
      std::vector<T> columns(plan.along_rows ? LANES * length : 0), grads(columns.size()), collected(columns.size());
      std::vector<uint8_t> taken(LANES * length);
      for (int64_t plane = begin; plane < end; ++plane) {
        for (int64_t first = 0; first < plan.lines; first += LANES) {
          const int64_t lanes = std::min(LANES, plan.lines - first);
          const int64_t start = plane * area + first * plan.line_step;
          if (plan.along_rows) {
            rows_to_columns(inputs + start, lanes, length, collected.data(), columns.data());
            rows_to_columns(upstreams + start, lanes, length, collected.data(), grads.data());
            const Band band{lanes, length, lanes, plan.step < 0};
            collect_band(columns.data(), grads.data(), band, taken.data(), collected.data());
            columns_to_rows(collected.data(), lanes, length, columns.data(), results + start);
          } else {
            const Band band{lanes, length, plan.lines, plan.step < 0};
            collect_band(inputs + start, upstreams + start, band, taken.data(), results + start);
          }
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
