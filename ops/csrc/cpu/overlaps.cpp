#include "cpu.h"

#include "../overlaps.h"

#include <algorithm>
#include <vector>

namespace sdk {
namespace {

// Boxes as four arrays of coordinates one after another.
template <typename T, typename W = Wide<T>>
std::vector<W> by_coordinate(const Tensor& boxes) {
  const int64_t count = boxes.size(0);
  const T* values = input_data<T>(boxes);
  std::vector<W> arrays(4 * count);
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t axis = 0; axis < 4; ++axis) {
      arrays[axis * count + i] = static_cast<W>(values[4 * i + axis]);
    }
  }
  return arrays;
}

template <typename T, int64_t KIND, typename W = Wide<T>>
SDK_SIMD void overlaps_of_row(const Box<W> a, const W* __restrict b, int64_t count, W eps, T* __restrict out) {
  for (int64_t m = 0; m < count; ++m) {
    const Box<W> other{b[m], b[count + m], b[2 * count + m], b[3 * count + m]};
    out[m] = static_cast<T>(overlap_of<KIND>(a, other, eps));
  }
}

// Adds the gradients of row `a` to those of `b`, and returns what is to be added to that of `a`.
template <typename T, int64_t KIND, typename W = Wide<T>>
SDK_SIMD Box<W> gradients_of_row(
    const Box<W> a, const W* __restrict b, int64_t count, W eps, const T* __restrict grad, W* __restrict grad_b) {
  W x1 = 0, y1 = 0, x2 = 0, y2 = 0;
#pragma omp simd reduction(+ : x1, y1, x2, y2)
  for (int64_t m = 0; m < count; ++m) {
    const Box<W> other{b[m], b[count + m], b[2 * count + m], b[3 * count + m]};
    const BoxGradients<W> g = overlap_gradients<KIND>(a, other, eps, static_cast<W>(grad[m]));
    x1 += g.a.x1;
    y1 += g.a.y1;
    x2 += g.a.x2;
    y2 += g.a.y2;
    grad_b[m] += g.b.x1;
    grad_b[count + m] += g.b.y1;
    grad_b[2 * count + m] += g.b.x2;
    grad_b[3 * count + m] += g.b.y2;
  }
  return {x1, y1, x2, y2};
}

Tensor pairwise_iou(const Tensor& a, const Tensor& b, int64_t kind, double eps) {
  check_overlap_arguments(a, b, kind, eps);
  const int64_t rows = a.size(0), columns = b.size(0);
  const Tensor a_in = packed(a), b_in = packed(b);
  const Tensor out = empty(a_in, {rows, columns});
  for_floating(a.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    check_no_nan<T>("a", a_in);
    check_no_nan<T>("b", b_in);
    const T* boxes = input_data<T>(a_in);
    const std::vector<W> others = by_coordinate<T>(b_in);
    T* result = output_data<T>(out);
    for_kind(kind, [&](auto constant) {
      parallel_for(0, rows, grain(8 * columns), [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
          overlaps_of_row<T, decltype(constant)::value>(
              load_box<W>(boxes + 4 * n), others.data(), columns, static_cast<W>(eps), result + n * columns);
        }
      });
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
  const Tensor grad_in = packed(grad), a_in = packed(a), b_in = packed(b);
  const Tensor grad_a = empty(a_in, {rows, 4}), grad_b = empty(b_in, {columns, 4});
  for_floating(a.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    const T* boxes = input_data<T>(a_in);
    const std::vector<W> others = by_coordinate<T>(b_in);
    const T* upstream = input_data<T>(grad_in);
    T* result_a = output_data<T>(grad_a);
    T* result_b = output_data<T>(grad_b);
    // A fixed number of blocks of rows, each with sums of its own, added in order: the same whatever the threads.
    constexpr int64_t BLOCKS = 16;
    const int64_t block = (rows + BLOCKS - 1) / BLOCKS;
    std::vector<W> sums(BLOCKS * 4 * columns, W{0});
    for_kind(kind, [&](auto constant) {
      parallel_for(0, BLOCKS, 1, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin * block; n < std::min(rows, end * block); ++n) {
          const Box<W> total = gradients_of_row<T, decltype(constant)::value>(
              load_box<W>(boxes + 4 * n),
              others.data(),
              columns,
              static_cast<W>(eps),
              upstream + n * columns,
              sums.data() + n / block * 4 * columns);
          store_box(total, result_a + 4 * n);
        }
      });
    });
    for (int64_t i = 0; i < 4 * columns; ++i) {
      W sum = 0;
      for (int64_t part = 0; part < BLOCKS; ++part) {
        sum += sums[part * 4 * columns + i];
      }
      result_b[i % columns * 4 + i / columns] = static_cast<T>(sum);
    }
  });
  return {grad_a, grad_b};
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CPU, m) {
  m.impl("pairwise_iou", TORCH_BOX(&sdk::pairwise_iou));
  m.impl("pairwise_iou_backward", TORCH_BOX(&sdk::pairwise_iou_backward));
}
