// The ops and their backward passes as PyTorch sees them. Contracts stand with the Python functions.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(sdk, m) {
  m.def(
      "batched_nms(Tensor boxes, Tensor scores, Tensor groups, float iou_threshold) -> (Tensor order, Tensor kept)");
  m.def(
      "batched_soft_nms(Tensor boxes, Tensor scores, Tensor groups, float iou_threshold, float sigma, "
      "float min_score, int method) -> (Tensor scores, Tensor kept)");

  m.def("pairwise_iou(Tensor a, Tensor b, int kind, float eps) -> Tensor");
  m.def("pairwise_iou_backward(Tensor grad, Tensor a, Tensor b, int kind, float eps) -> (Tensor, Tensor)");

  m.def("paste_masks(Tensor masks, Tensor boxes, int height, int width, float threshold) -> Tensor");
  m.def(
      "paste_and_encode(Tensor masks, Tensor boxes, int height, int width, float threshold) "
      "-> (Tensor counts, Tensor lengths)");

  m.def(
      "deform_roi_pool(Tensor input, Tensor rois, Tensor? offset, int output_height, int output_width, "
      "float spatial_scale, int sampling_ratio, float gamma) -> Tensor");
  m.def(
      "deform_roi_pool_backward(Tensor grad, Tensor input, Tensor rois, Tensor? offset, int output_height, "
      "int output_width, float spatial_scale, int sampling_ratio, float gamma) -> (Tensor, Tensor)");

  m.def(
      "ms_deform_attn(Tensor value, Tensor spatial_shapes, Tensor level_start_index, Tensor sampling_locations, "
      "Tensor attention_weights) -> Tensor");
  m.def(
      "ms_deform_attn_backward(Tensor grad, Tensor value, Tensor spatial_shapes, Tensor level_start_index, "
      "Tensor sampling_locations, Tensor attention_weights) -> (Tensor, Tensor, Tensor)");

  m.def("carafe(Tensor features, Tensor masks, int kernel_size, int groups, int scale_factor) -> Tensor");
  m.def(
      "carafe_backward(Tensor grad, Tensor features, Tensor masks, int kernel_size, int groups, int scale_factor) "
      "-> (Tensor, Tensor)");

  m.def("masked_conv2d(Tensor x, Tensor mask, Tensor weight, Tensor? bias, int[] padding, int[] stride) -> Tensor");

  m.def("corner_pool(Tensor x, int direction) -> Tensor");
  m.def("corner_pool_backward(Tensor grad, Tensor x, int direction) -> Tensor");

  m.def("sigmoid_focal_loss(Tensor logits, Tensor labels, float gamma, float alpha, Tensor? weight) -> Tensor");
  m.def(
      "sigmoid_focal_loss_backward(Tensor grad, Tensor logits, Tensor labels, float gamma, float alpha, "
      "Tensor? weight) -> (Tensor, Tensor)");
}
