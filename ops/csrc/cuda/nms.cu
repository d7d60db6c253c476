#include "../suppression.h"
#include "cuda.cuh"

#include <array>
#include <limits>

// As on the CPU, boxes are sorted by score and then (stably) by group. One block works on each group; which blocks
// start a group is read from the sorted groups on the device, so nothing waits for the host.

namespace sdk {
namespace {

// Values and indices of a stable sort along a vector.
std::tuple<Tensor, Tensor> stable_sort(const Tensor& values, bool descending) {
  std::array<StableIValue, 4> stack{
      torch::stable::detail::from(values),
      torch::stable::detail::from(std::optional<bool>(true)),
      torch::stable::detail::from(static_cast<int64_t>(0)),
      torch::stable::detail::from(descending)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1])};
}

__global__ void gather_groups(const int64_t* groups, const int64_t* order, int64_t count, int64_t* out) {
  SDK_FOR_EACH(i, count) {
    out[i] = groups[order[i]];
  }
}

// Boxes in the order of `ranks` (places in `order`).
template <typename T, typename W>
__global__ void gather_boxes(const T* boxes, const int64_t* order, const int64_t* ranks, int64_t count, W* out) {
  SDK_FOR_EACH(i, 4 * count) {
    out[i] = static_cast<W>(boxes[4 * order[ranks[i / 4]] + i % 4]);
  }
}

// The end of the run of equal groups that starts at `begin`.
__device__ int64_t run_end(const int64_t* groups, int64_t begin, int64_t count) {
  int64_t low = begin, high = count;
  while (low + 1 < high) {
    const int64_t middle = (low + high) / 2;
    if (groups[middle] == groups[begin]) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return high;
}

template <typename W>
__device__ W iou_of(const W* a, const W* b) {
  const W width = max(W(0), min(a[2], b[2]) - max(a[0], b[0]));
  const W height = max(W(0), min(a[3], b[3]) - max(a[1], b[1]));
  const W overlap = width * height;
  return overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap);
}

template <typename W>
__global__ void suppress(
    const W* boxes,
    const int64_t* groups,
    const int64_t* ranks,
    int64_t count,
    double threshold,
    volatile bool* suppressed,
    bool* kept) {
  for (int64_t begin = blockIdx.x; begin < count; begin += gridDim.x) {
    if (begin > 0 && groups[begin] == groups[begin - 1]) {
      continue;
    }
    const int64_t end = run_end(groups, begin, count);
    for (int64_t i = begin; i < end; ++i) {
      if (!suppressed[i]) {
        for (int64_t j = i + 1 + threadIdx.x; j < end; j += blockDim.x) {
          if (static_cast<double>(iou_of(boxes + 4 * i, boxes + 4 * j)) > threshold) {
            suppressed[j] = true;
          }
        }
      }
      __syncthreads();
    }
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
      kept[ranks[i]] = !suppressed[i];
    }
  }
}

// `left` are scores in the order of the boxes, TAKEN once used.
template <typename T, typename W>
__global__ void decay(
    const W* boxes,
    const int64_t* groups,
    const int64_t* order,
    const int64_t* ranks,
    int64_t count,
    W threshold,
    W sigma,
    W lowest,
    int64_t method,
    volatile W* left,
    T* scores,
    bool* kept) {
  __shared__ W best_score[THREADS];
  __shared__ int64_t best_place[THREADS];
  const W taken = -static_cast<W>(INFINITY);
  for (int64_t begin = blockIdx.x; begin < count; begin += gridDim.x) {
    if (begin > 0 && groups[begin] == groups[begin - 1]) {
      continue;
    }
    const int64_t end = run_end(groups, begin, count);
    for (int64_t turn = begin; turn < end; ++turn) {
      W score = taken;
      int64_t place = -1;
      for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
        // Equal scores: the lower index in the input.
        const W value = left[i];
        if (value > score || (place >= 0 && value == score && order[ranks[i]] < order[ranks[place]])) {
          score = value;
          place = i;
        }
      }
      best_score[threadIdx.x] = score;
      best_place[threadIdx.x] = place;
      __syncthreads();
      for (int step = THREADS / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) {
          const W other = best_score[threadIdx.x + step];
          const int64_t there = best_place[threadIdx.x + step], here = best_place[threadIdx.x];
          const bool tie = other == best_score[threadIdx.x] && there >= 0 && here >= 0;
          if (other > best_score[threadIdx.x] || (tie && order[ranks[there]] < order[ranks[here]])) {
            best_score[threadIdx.x] = other;
            best_place[threadIdx.x] = there;
          }
        }
        __syncthreads();
      }
      const int64_t best = best_place[0];
      const W top = best_score[0];
      __syncthreads();
      // The very best box of all stays whatever its score; it has rank 0.
      if (best < 0 || (top < lowest && ranks[best] != 0)) {
        break;
      }
      if (threadIdx.x == 0) {
        scores[order[ranks[best]]] = static_cast<T>(top);
        kept[order[ranks[best]]] = true;
      }
      for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
        if (i == best) {
          left[i] = taken;
        } else if (left[i] != taken) {
          W iou = iou_of(boxes + 4 * best, boxes + 4 * i);
          iou = iou == iou ? iou : W(0);
          W weight = 1;
          if (method == GAUSSIAN) {
            weight = exp(-(iou * iou) / sigma);
          } else if (iou >= threshold) {
            weight = method == LINEAR ? W(1) - iou : W(0);
          }
          left[i] = left[i] * weight;
        }
      }
      __syncthreads();
    }
  }
}

template <typename T, typename W>
__global__ void gather_scores(const T* scores, const int64_t* order, const int64_t* ranks, int64_t count, W* out) {
  SDK_FOR_EACH(i, count) {
    out[i] = static_cast<W>(scores[order[ranks[i]]]);
  }
}

// Boxes sorted by group, best first: `ranks` are the places in `order`, which is by score alone.
struct Grouped {
  Tensor order, groups, ranks, boxes;

  Grouped(const Tensor& boxes_in, const Tensor& scores, const Tensor& groups_in, cudaStream_t stream) {
    const int64_t count = boxes_in.size(0);
    order = packed(std::get<1>(stable_sort(scores, true)));
    const Tensor by_score = empty(groups_in, {count});
    gather_groups<<<blocks_for(count), THREADS, 0, stream>>>(
        input_data<int64_t>(groups_in), input_data<int64_t>(order), count, output_data<int64_t>(by_score));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    const auto [sorted, places] = stable_sort(by_score, false);
    groups = packed(sorted);
    ranks = packed(places);
    boxes = empty(boxes_in, {count, 4}, wide_type(boxes_in.scalar_type()));
    for_floating(boxes_in.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      gather_boxes<<<blocks_for(4 * count), THREADS, 0, stream>>>(
          input_data<T>(boxes_in),
          input_data<int64_t>(order),
          input_data<int64_t>(ranks),
          count,
          output_data<Wide<T>>(boxes));
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  }
};

std::tuple<Tensor, Tensor> batched_nms(
    const Tensor& boxes, const Tensor& scores, const Tensor& groups, double iou_threshold) {
  check_suppression_arguments(boxes, scores, groups, iou_threshold);
  const int64_t count = boxes.size(0);
  const OnDevice device(boxes);
  const Tensor kept = empty(groups, {count}, ScalarType::Bool);
  if (count == 0) {
    return {empty(groups, {count}), kept};
  }
  const Grouped grouped(packed(boxes), packed(scores), packed(groups), device.stream);
  const Tensor suppressed = zeros(groups, {count}, ScalarType::Bool);
  for_floating(grouped.boxes.scalar_type(), [&](auto zero) {
    using W = Wide<decltype(zero)>;
    suppress<<<blocks_for(count, 1), THREADS, 0, device.stream>>>(
        input_data<W>(grouped.boxes),
        input_data<int64_t>(grouped.groups),
        input_data<int64_t>(grouped.ranks),
        count,
        iou_threshold,
        output_data<bool>(suppressed),
        output_data<bool>(kept));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {grouped.order, kept};
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
  const OnDevice device(boxes);
  const Tensor decayed = zeros(scores, {count});
  const Tensor kept = zeros(groups, {count}, ScalarType::Bool);
  if (count == 0) {
    return {decayed, kept};
  }
  const Tensor scores_in = packed(scores);
  const Grouped grouped(packed(boxes), scores_in, packed(groups), device.stream);
  const Tensor left = empty(grouped.boxes, {count});
  for_floating(scores.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using W = Wide<T>;
    const int64_t* order = input_data<int64_t>(grouped.order);
    const int64_t* ranks = input_data<int64_t>(grouped.ranks);
    gather_scores<<<blocks_for(count), THREADS, 0, device.stream>>>(
        input_data<T>(scores_in), order, ranks, count, output_data<W>(left));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    decay<<<blocks_for(count, 1), THREADS, 0, device.stream>>>(
        input_data<W>(grouped.boxes),
        input_data<int64_t>(grouped.groups),
        order,
        ranks,
        count,
        static_cast<W>(iou_threshold),
        static_cast<W>(sigma),
        static_cast<W>(min_score),
        method,
        output_data<W>(left),
        output_data<T>(decayed),
        output_data<bool>(kept));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {decayed, kept};
}

}  // namespace
}  // namespace sdk

STABLE_TORCH_LIBRARY_IMPL(sdk, CUDA, m) {
  m.impl("batched_nms", TORCH_BOX(&sdk::batched_nms));
  m.impl("batched_soft_nms", TORCH_BOX(&sdk::batched_soft_nms));
}
