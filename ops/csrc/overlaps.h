// The overlap of two boxes and its gradients, for the CPU and CUDA kernels.
#pragma once

#include "common.h"

#ifdef __CUDACC__
#define SDK_BOTH __host__ __device__ __forceinline__
#else
#define SDK_BOTH inline __attribute__((always_inline))
#endif

namespace sdk {

enum Kind : int64_t { IOU = 0, IOF = 1, GIOU = 2 };

template <int64_t VALUE>
struct KindConstant {
  static constexpr int64_t value = VALUE;
};

// Calls `body` with the kind as a constant type.
template <typename Body>
void for_kind(int64_t kind, const Body& body) {
  if (kind == IOU) {
    body(KindConstant<IOU>{});
  } else if (kind == IOF) {
    body(KindConstant<IOF>{});
  } else {
    body(KindConstant<GIOU>{});
  }
}

inline void check_overlap_arguments(const Tensor& a, const Tensor& b, int64_t kind, double eps) {
  check_shape("a", a, {ANY, 4});
  check_shape("b", b, {ANY, 4});
  check_floating("a", a);
  check_like("b", b, a);
  check(kind >= IOU && kind <= GIOU, "kind: expected 0, 1 or 2, found ", kind);
  check_number("eps", eps, eps > 0, "a number above 0");
}

template <typename W>
struct Box {
  W x1, y1, x2, y2;
};

template <typename W>
struct BoxGradients {
  Box<W> a, b;
};

template <typename W, typename T>
SDK_BOTH Box<W> load_box(const T* values) {
  return {
      static_cast<W>(values[0]), static_cast<W>(values[1]), static_cast<W>(values[2]), static_cast<W>(values[3])};
}

template <typename W, typename T>
SDK_BOTH void store_box(const Box<W>& box, T* values) {
  values[0] = static_cast<T>(box.x1);
  values[1] = static_cast<T>(box.y1);
  values[2] = static_cast<T>(box.x2);
  values[3] = static_cast<T>(box.y2);
}

template <typename W>
SDK_BOTH W larger(W a, W b) {
  return a < b ? b : a;
}

template <typename W>
SDK_BOTH W smaller(W a, W b) {
  return b < a ? b : a;
}

template <typename W>
SDK_BOTH W area_of(const Box<W>& box) {
  return (box.x2 - box.x1) * (box.y2 - box.y1);
}

template <int64_t KIND, typename W>
SDK_BOTH W overlap_of(const Box<W>& a, const Box<W>& b, W eps) {
  const W width = larger(smaller(a.x2, b.x2) - larger(a.x1, b.x1), W(0));
  const W height = larger(smaller(a.y2, b.y2) - larger(a.y1, b.y1), W(0));
  const W overlap = width * height;
  const W whole = KIND == IOF ? area_of(a) : area_of(a) + area_of(b) - overlap;
  const W together = larger(whole, eps);
  const W iou = overlap / together;
  if constexpr (KIND != GIOU) {
    return iou;
  }
  const W hull_width = larger(a.x2, b.x2) - smaller(a.x1, b.x1);
  const W hull_height = larger(a.y2, b.y2) - smaller(a.y1, b.y1);
  const W enclosing = larger(hull_width * hull_height, eps);
  return iou - (enclosing - together) / enclosing;
}

// How much of the gradient of max(a, b) goes to a; equal ones share it. That of min(a, b) is share(b, a).
template <typename W>
SDK_BOTH W share(W a, W b) {
  return a > b ? W(1) : (a == b ? W(0.5) : W(0));
}

template <int64_t KIND, typename W>
SDK_BOTH BoxGradients<W> overlap_gradients(const Box<W>& a, const Box<W>& b, W eps, W grad) {
  const W raw_width = smaller(a.x2, b.x2) - larger(a.x1, b.x1);
  const W raw_height = smaller(a.y2, b.y2) - larger(a.y1, b.y1);
  const W width = larger(raw_width, W(0)), height = larger(raw_height, W(0));
  const W overlap = width * height;
  const W whole = KIND == IOF ? area_of(a) : area_of(a) + area_of(b) - overlap;
  const W together = larger(whole, eps);

  // By the overlap, the union, and the enclosing area.
  W by_overlap = grad / together;
  W by_union = -grad * overlap / (together * together);
  W by_width = 0, by_height = 0;
  if constexpr (KIND == GIOU) {
    const W hull_width = larger(a.x2, b.x2) - smaller(a.x1, b.x1);
    const W hull_height = larger(a.y2, b.y2) - smaller(a.y1, b.y1);
    const W hull = hull_width * hull_height;
    const W enclosing = larger(hull, eps);
    by_union += grad / enclosing;
    const W by_enclosing = hull > eps ? -grad * together / (enclosing * enclosing) : W(0);
    by_width = by_enclosing * hull_height;
    by_height = by_enclosing * hull_width;
  }
  by_union = whole > eps ? by_union : W(0);
  const W by_area_b = KIND == IOF ? W(0) : by_union;
  by_overlap -= by_area_b;
  const W by_x = raw_width > W(0) ? by_overlap * height : W(0);
  const W by_y = raw_height > W(0) ? by_overlap * width : W(0);

  const W a_width = a.x2 - a.x1, a_height = a.y2 - a.y1, b_width = b.x2 - b.x1, b_height = b.y2 - b.y1;
  const W x1_a = share(a.x1, b.x1), y1_a = share(a.y1, b.y1), x2_a = share(a.x2, b.x2), y2_a = share(a.y2, b.y2);
  BoxGradients<W> g;
  g.a.x1 = -by_x * x1_a - by_width * (1 - x1_a) - by_union * a_height;
  g.b.x1 = -by_x * (1 - x1_a) - by_width * x1_a - by_area_b * b_height;
  g.a.y1 = -by_y * y1_a - by_height * (1 - y1_a) - by_union * a_width;
  g.b.y1 = -by_y * (1 - y1_a) - by_height * y1_a - by_area_b * b_width;
  g.a.x2 = by_x * (1 - x2_a) + by_width * x2_a + by_union * a_height;
  g.b.x2 = by_x * x2_a + by_width * (1 - x2_a) + by_area_b * b_height;
  g.a.y2 = by_y * (1 - y2_a) + by_height * y2_a + by_union * a_width;
  g.b.y2 = by_y * y2_a + by_height * (1 - y2_a) + by_area_b * b_width;
  return g;
}

}  // namespace sdk
