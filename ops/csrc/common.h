// Argument checks and type dispatch that the CPU and CUDA kernels share.
//
// Everything is written against PyTorch's stable ABI (torch/csrc/stable, torch/headeronly): one build runs on every
// PyTorch from the one named by TORCH_TARGET_VERSION in setup.py onward.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>

namespace sdk {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The type in which values of type T are computed.
template <typename T>
struct WideOf {
  using type = float;
};
template <>
struct WideOf<double> {
  using type = double;
};
template <typename T>
using Wide = typename WideOf<T>::type;

// Python sees a RuntimeError with the message.
template <typename... Parts>
void check(bool condition, const Parts&... parts) {
  if (!condition) {
    std::ostringstream message;
    (message << ... << parts);
    throw std::runtime_error(message.str());
  }
}

// Any size is accepted where `expected` is ANY.
constexpr int64_t ANY = -1;

inline void check_shape(const char* name, const Tensor& tensor, std::initializer_list<int64_t> expected) {
  bool fits = tensor.dim() == static_cast<int64_t>(expected.size());
  int64_t axis = 0;
  for (int64_t size : expected) {
    fits = fits && (size == ANY || tensor.size(axis) == size);
    ++axis;
  }
  if (fits) {
    return;
  }
  std::ostringstream message;
  message << name << ": expected shape (";
  const char* comma = "";
  for (int64_t size : expected) {
    message << comma << (size == ANY ? std::string("any") : std::to_string(size));
    comma = ", ";
  }
  message << "), found (";
  comma = "";
  for (axis = 0; axis < tensor.dim(); ++axis) {
    message << comma << tensor.size(axis);
    comma = ", ";
  }
  message << ")";
  throw std::runtime_error(message.str());
}

inline void check_device(const char* name, const Tensor& tensor, const Tensor& like) {
  check(
      tensor.is_cpu() == like.is_cpu() && tensor.is_cuda() == like.is_cuda() &&
          tensor.get_device_index() == like.get_device_index(),
      name,
      ": expected on the device of the other arguments");
}

inline void check_integer(const char* name, const Tensor& tensor, const Tensor& like) {
  check(tensor.scalar_type() == ScalarType::Long, name, ": expected int64");
  check_device(name, tensor, like);
}

inline void check_floating(const char* name, const Tensor& tensor) {
  const ScalarType type = tensor.scalar_type();
  check(
      type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
          type == ScalarType::BFloat16,
      name,
      ": expected float32, float64, float16 or bfloat16");
}

inline void check_like(const char* name, const Tensor& tensor, const Tensor& like) {
  check(tensor.scalar_type() == like.scalar_type(), name, ": expected the dtype of the other arguments");
  check_device(name, tensor, like);
}

inline void check_number(const char* name, double number, bool valid, const char* expected) {
  check(valid, name, ": expected ", expected, ", found ", number);
}

// Calls `body(T{})` with T the element type of a floating point tensor.
template <typename Body>
void for_floating(ScalarType type, const Body& body) {
  switch (type) {
    case ScalarType::Float:
      return body(float{});
    case ScalarType::Double:
      return body(double{});
    case ScalarType::Half:
      return body(torch::headeronly::Half{});
    case ScalarType::BFloat16:
      return body(torch::headeronly::BFloat16{});
    default:
      check(false, "expected float32, float64, float16 or bfloat16");
  }
}

inline Tensor packed(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

inline std::optional<Tensor> packed(const std::optional<Tensor>& tensor) {
  return tensor ? std::optional<Tensor>(packed(*tensor)) : std::nullopt;
}

inline Tensor empty(const Tensor& like, std::initializer_list<int64_t> sizes) {
  return torch::stable::new_empty(like, {sizes.begin(), sizes.size()});
}

inline Tensor empty(const Tensor& like, std::initializer_list<int64_t> sizes, ScalarType type) {
  return torch::stable::new_empty(like, {sizes.begin(), sizes.size()}, type);
}

inline Tensor zeros(const Tensor& like, std::initializer_list<int64_t> sizes) {
  return torch::stable::new_zeros(like, {sizes.begin(), sizes.size()});
}

inline Tensor zeros(const Tensor& like, std::initializer_list<int64_t> sizes, ScalarType type) {
  return torch::stable::new_zeros(like, {sizes.begin(), sizes.size()}, type);
}

template <typename T>
const T* input_data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
T* output_data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

}  // namespace sdk
