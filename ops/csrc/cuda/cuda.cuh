// What the CUDA kernels share. Every launch goes to PyTorch's current stream of the tensors' device; no kernel waits
// for the host or copies to it.
#pragma once

#include "../common.h"

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>

namespace sdk {

constexpr int THREADS = 256;

// Makes the device of a tensor current while it lives, and knows the stream to launch on.
class OnDevice {
 public:
  explicit OnDevice(const Tensor& tensor) : guard_(tensor.get_device_index()) {
    void* handle = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &handle));
    stream = static_cast<cudaStream_t>(handle);
  }

  cudaStream_t stream;

 private:
  torch::stable::accelerator::DeviceGuard guard_;
};

// Blocks for a loop over `count` items with a stride of the whole grid.
inline unsigned int blocks_for(int64_t count, int64_t per_block = THREADS) {
  constexpr int64_t MOST = 1 << 20;
  return static_cast<unsigned int>(std::clamp<int64_t>((count + per_block - 1) / per_block, 1, MOST));
}

#define SDK_FOR_EACH(index, count)                                                        \
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; index < (count); \
       index += static_cast<int64_t>(gridDim.x) * blockDim.x)

// The dtype in which sums over a tensor of `type` are kept.
inline ScalarType wide_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline Tensor as_type(const Tensor& tensor, ScalarType type) {
  return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
}

// The sum of `value` over the threads of a block of THREADS, in a fixed order; valid in thread 0.
template <typename W>
__device__ W block_sum(W value) {
  __shared__ W partial[THREADS / 32];
  for (int step = 16; step > 0; step /= 2) {
    value += __shfl_down_sync(0xffffffffu, value, step);
  }
  if (threadIdx.x % 32 == 0) {
    partial[threadIdx.x / 32] = value;
  }
  __syncthreads();
  W sum = 0;
  if (threadIdx.x == 0) {
    for (int warp = 0; warp < THREADS / 32; ++warp) {
      sum += partial[warp];
    }
  }
  __syncthreads();
  return sum;
}

}  // namespace sdk
