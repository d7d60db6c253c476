#include "cpu.h"

#include "../suppression.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

// Boxes are sorted by score, then (stably) by group, so that each group is one contiguous run, best first, and the
// work is the sum of the squares of the group sizes whatever the number of groups. All sorting is by digits of keys.

namespace sdk {
namespace {

template <typename W>
using KeyOf = std::conditional_t<sizeof(W) == 8, uint64_t, uint32_t>;

// A key that grows as the number falls; equal for 0 and -0.
template <typename W>
KeyOf<W> descending_key(W value) {
  using Key = KeyOf<W>;
  constexpr Key SIGN = Key{1} << (8 * sizeof(Key) - 1);
  value += W{0};
  Key bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const Key ascending = (bits & SIGN) ? ~bits : bits | SIGN;
  return ~ascending;
}

// Sorts `order` stably by `keys[order[i]]`, of which only the low `bits` bits are looked at.
template <typename Key>
void radix_sort(const std::vector<Key>& keys, std::vector<int64_t>& order, int bits) {
  constexpr int DIGIT = 11;
  constexpr size_t BUCKETS = size_t{1} << DIGIT;
  std::vector<int64_t> other(order.size());
  for (int shift = 0; shift < bits; shift += DIGIT) {
    int64_t place[BUCKETS] = {};
    for (int64_t i : order) {
      ++place[(keys[i] >> shift) & (BUCKETS - 1)];
    }
    int64_t start = 0;
    for (int64_t& count : place) {
      const int64_t size = count;
      count = start;
      start += size;
    }
    for (int64_t i : order) {
      other[place[(keys[i] >> shift) & (BUCKETS - 1)]++] = i;
    }
    order.swap(other);
  }
}

// Sorts `order` stably by group and gives the start of each group's run, and the end of the last.
std::vector<int64_t> gather_groups(const int64_t* groups, std::vector<int64_t>& order) {
  const int64_t count = static_cast<int64_t>(order.size());
  const auto [lowest, highest] = std::minmax_element(groups, groups + count);
  const uint64_t base = static_cast<uint64_t>(*lowest);
  const uint64_t range = static_cast<uint64_t>(*highest) - base;
  int bits = 0;
  while (bits < 64 && (range >> bits) != 0) {
    ++bits;
  }
  std::vector<uint64_t> keys(count);
  for (int64_t i = 0; i < count; ++i) {
    keys[i] = static_cast<uint64_t>(groups[i]) - base;
  }
  radix_sort(keys, order, bits);
  std::vector<int64_t> starts{0};
  for (int64_t i = 1; i < count; ++i) {
    if (keys[order[i]] != keys[order[i - 1]]) {
      starts.push_back(i);
    }
  }
  starts.push_back(count);
  return starts;
}

// Coordinates and areas of boxes, each in an array of its own.
template <typename W>
struct Boxes {
  std::vector<W> x1, y1, x2, y2, area;

  template <typename T>
  Boxes(const T* boxes, const std::vector<int64_t>& order)
      : x1(order.size()), y1(order.size()), x2(order.size()), y2(order.size()), area(order.size()) {
    for (size_t i = 0; i < order.size(); ++i) {
      const T* box = boxes + 4 * order[i];
      x1[i] = static_cast<W>(box[0]);
      y1[i] = static_cast<W>(box[1]);
      x2[i] = static_cast<W>(box[2]);
      y2[i] = static_cast<W>(box[3]);
      area[i] = (x2[i] - x1[i]) * (y2[i] - y1[i]);
    }
  }
};

// Zero where it is not defined (two boxes without area).
template <typename W>
inline W iou_with(const Boxes<W>& boxes, int64_t i, int64_t j) {
  const W width = std::max(W{0}, std::min(boxes.x2[i], boxes.x2[j]) - std::max(boxes.x1[i], boxes.x1[j]));
  const W height = std::max(W{0}, std::min(boxes.y2[i], boxes.y2[j]) - std::max(boxes.y1[i], boxes.y1[j]));
  const W overlap = width * height;
  const W iou = overlap / (boxes.area[i] + boxes.area[j] - overlap);
  return iou == iou ? iou : W{0};
}

// `suppressed` has the width of W, so that comparisons need no packing.
template <typename W>
SDK_SIMD void suppress_run(
    const Boxes<W>& boxes, int64_t begin, int64_t end, W threshold, KeyOf<W>* __restrict suppressed) {
  const W* __restrict x1 = boxes.x1.data();
  const W* __restrict y1 = boxes.y1.data();
  const W* __restrict x2 = boxes.x2.data();
  const W* __restrict y2 = boxes.y2.data();
  const W* __restrict area = boxes.area.data();
  for (int64_t i = begin; i < end; ++i) {
    if (suppressed[i]) {
      continue;
    }
    const W left = x1[i], top = y1[i], right = x2[i], bottom = y2[i], own = area[i];
    for (int64_t j = i + 1; j < end; ++j) {
      const W width = std::max(W{0}, std::min(right, x2[j]) - std::max(left, x1[j]));
      const W height = std::max(W{0}, std::min(bottom, y2[j]) - std::max(top, y1[j]));
      const W overlap = width * height;
      const W iou = overlap / (own + area[j] - overlap);
      suppressed[j] |= iou > threshold ? KeyOf<W>{1} : KeyOf<W>{0};
    }
  }
}

// The largest number of type W that is not above `value`: comparing with it is comparing with `value`.
template <typename W>
W round_down(double value) {
  const W rounded = static_cast<W>(value);
  return static_cast<double>(rounded) > value ? std::nextafter(rounded, -std::numeric_limits<W>::infinity()) : rounded;
}

std::tuple<Tensor, Tensor> batched_nms(
    const Tensor& boxes, const Tensor& scores, const Tensor& groups, double iou_threshold) {
  check_suppression_arguments(boxes, scores, groups, iou_threshold);
  const int64_t count = boxes.size(0);
  const Tensor boxes_in = packed(boxes), scores_in = packed(scores), groups_in = packed(groups);
  const Tensor ranking = empty(groups_in, {count});
  const Tensor kept = empty(groups_in, {count}, ScalarType::Bool);
  if (count == 0) {
    return {ranking, kept};
  }
  for_floating(boxes.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    check_no_nan<T>("boxes", boxes_in);
    check_no_nan<T>("scores", scores_in);
    std::vector<KeyOf<W>> keys(count);
    std::vector<int64_t> order(count);
    const T* values = input_data<T>(scores_in);
    for (int64_t i = 0; i < count; ++i) {
      keys[i] = descending_key(static_cast<W>(values[i]));
      order[i] = i;
    }
    radix_sort(keys, order, 8 * sizeof(W));
    std::copy(order.begin(), order.end(), output_data<int64_t>(ranking));

    std::vector<int64_t> rank(count);
    for (int64_t i = 0; i < count; ++i) {
      rank[order[i]] = i;
    }
    const std::vector<int64_t> starts = gather_groups(input_data<int64_t>(groups_in), order);
    const int64_t runs = static_cast<int64_t>(starts.size()) - 1;
    const Boxes<W> grouped(input_data<T>(boxes_in), order);
    std::vector<KeyOf<W>> suppressed(count, 0);
    const W threshold = round_down<W>(iou_threshold);
    const int64_t mean = count / runs + 1;
    parallel_for(0, runs, grain(mean * mean / 4), [&](int64_t begin, int64_t end) {
      for (int64_t run = begin; run < end; ++run) {
        suppress_run(grouped, starts[run], starts[run + 1], threshold, suppressed.data());
      }
    });
    bool* chosen = output_data<bool>(kept);
    for (int64_t i = 0; i < count; ++i) {
      chosen[rank[order[i]]] = suppressed[i] == 0;
    }
  });
  return {ranking, kept};
}

// Stands for the score of a box that is taken.
template <typename W>
constexpr W TAKEN = -std::numeric_limits<W>::infinity();

// The place of the highest score of [begin, end), the first of equals; `end` when all are taken.
template <typename W>
SDK_SIMD int64_t best_of(const W* __restrict scores, int64_t begin, int64_t end) {
  W best = TAKEN<W>;
#pragma omp simd reduction(max : best)
  for (int64_t i = begin; i < end; ++i) {
    best = scores[i] > best ? scores[i] : best;
  }
  int64_t place = best == TAKEN<W> ? end : begin;
  while (place < end && scores[place] != best) {
    ++place;
  }
  return place;
}

template <typename W>
SDK_SIMD void decay(
    const Boxes<W>& boxes,
    int64_t best,
    int64_t begin,
    int64_t end,
    int64_t method,
    W threshold,
    W sigma,
    W* __restrict scores) {
  for (int64_t j = begin; j < end; ++j) {
    const W iou = iou_with(boxes, best, j);
    W weight;
    if (method == GAUSSIAN) {
      weight = std::exp(-(iou * iou) / sigma);
    } else {
      const W beyond = method == LINEAR ? W{1} - iou : W{0};
      weight = iou >= threshold ? beyond : W{1};
    }
    scores[j] = scores[j] == TAKEN<W> ? TAKEN<W> : scores[j] * weight;
  }
}

std::tuple<Tensor, Tensor> batched_soft_nms(
    const Tensor& boxes,
    const Tensor& scores,
    const Tensor& groups,
    double iou_threshold,
    double sigma,
    double min_score,
    int64_t method) {
  check_suppression_arguments(boxes, scores, groups, iou_threshold);
  check_soft_arguments(sigma, min_score, method);
  const int64_t count = boxes.size(0);
  const Tensor boxes_in = packed(boxes), scores_in = packed(scores), groups_in = packed(groups);
  const Tensor decayed = zeros(scores_in, {count});
  const Tensor kept = zeros(groups_in, {count}, ScalarType::Bool);
  if (count == 0) {
    return {decayed, kept};
  }
  for_floating(boxes.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    check_no_nan<T>("boxes", boxes_in);
    check_no_nan<T>("scores", scores_in);
    const T* values = input_data<T>(scores_in);
    std::vector<int64_t> order(count);
    int64_t champion = 0;
    for (int64_t i = 0; i < count; ++i) {
      order[i] = i;
      champion = static_cast<W>(values[i]) > static_cast<W>(values[champion]) ? i : champion;
    }
    const std::vector<int64_t> starts = gather_groups(input_data<int64_t>(groups_in), order);
    const int64_t runs = static_cast<int64_t>(starts.size()) - 1;
    const Boxes<W> grouped(input_data<T>(boxes_in), order);
    T* result = output_data<T>(decayed);
    bool* chosen = output_data<bool>(kept);
    const W threshold = static_cast<W>(iou_threshold), lowest = static_cast<W>(min_score);
    std::vector<W> left(count);
    const int64_t mean = count / runs + 1;
    parallel_for(0, runs, grain(mean * mean / 4), [&](int64_t first, int64_t last) {
      for (int64_t run = first; run < last; ++run) {
        const int64_t begin = starts[run], end = starts[run + 1];
        for (int64_t i = begin; i < end; ++i) {
          left[i] = static_cast<W>(values[order[i]]);
        }
        for (int64_t turn = begin; turn < end; ++turn) {
          const int64_t best = best_of(left.data(), begin, end);
          if (best == end || (left[best] < lowest && order[best] != champion)) {
            break;
          }
          result[order[best]] = static_cast<T>(left[best]);
          chosen[order[best]] = true;
          left[best] = TAKEN<W>;
          decay(grouped, best, begin, end, method, threshold, static_cast<W>(sigma), left.data());
        }
      }
    });
  });
  return {decayed, kept};
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CPU, m) {
  m.impl("batched_nms", TORCH_BOX(&sdk::batched_nms));
  m.impl("batched_soft_nms", TORCH_BOX(&sdk::batched_soft_nms));
}
