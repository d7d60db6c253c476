"""A detector as one function of tensors, in operations that exported formats hold.

Shape letters: B images, H x W pixels, P x Q padded pixels, M detections of an image at most, S edge of a mask.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision.nms)
from torch import Tensor, nn

from ..datasets.transforms import Preprocessing
from ..errors import SdkError
from ..models.folding import for_inference, in_standard_order
from ..models.structures import OpenBatch, Suppress
from .resizing import ResizeAndNormalize


class ExportedNetwork(nn.Module):
    """Images to (B, M, 4) boxes, (B, M) scores, (B, M) labels, (B,) counts and, of a detector with masks, the
    (B, M, S, S) probabilities of each box, and (B, M) scores of masks where it has them.

    Boxes are xyxy in each image's own pixels, best first; behind the count they are zero, labels -1.
    """

    def __init__(self, model: nn.Module, suppress: Suppress) -> None:
        super().__init__()
        require_exportable(model)
        self.model: Any = in_standard_order(for_inference(copy.deepcopy(model).cpu())).requires_grad_(False)
        self.suppress = suppress

    def detect(self, pixels: Tensor, sizes: Tensor, scales: Tensor) -> tuple[Tensor, ...]:
        """pixels: (B, 3, P, Q) float32 normalized, zero padded. sizes: (B, 2) float32 valid (h, w). scales: (B, 2)
        float32 (x, y) factors by which the images were resized."""
        all_images = self.model.predict(OpenBatch(pixels, sizes, scales, self.suppress))
        if len(all_images) != 1:
            raise SdkError("its post-processing is made for each image anew, which no exported program holds")
        (found,) = all_images
        further = [one for one in (found.masks, found.mask_scores) if one is not None]
        return (found.boxes, found.scores, found.labels, (found.labels >= 0).sum(dim=1), *further)


class Inside(ExportedNetwork):
    """(B, 3, H, W) uint8 RGB images of one size to detections: resizing and normalization are inside."""

    def __init__(self, model: nn.Module, suppress: Suppress, preprocessing: Preprocessing) -> None:
        super().__init__(model, suppress)
        self.prepare = ResizeAndNormalize(preprocessing)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        pixels, size, scale = self.prepare(images)
        count = images.shape[0]
        return self.detect(pixels, size.expand(count, 2), scale.expand(count, 2))


class Outside(ExportedNetwork):
    """Normalized and padded pixels, valid sizes and factors, as of ``detect``, to detections."""

    def forward(self, pixels: Tensor, sizes: Tensor, scales: Tensor) -> tuple[Tensor, ...]:
        return self.detect(pixels, sizes, scales)


def require_exportable(model: nn.Module) -> None:
    """Raises SdkError with the reason where it is known beforehand that a detector cannot be exported."""
    if getattr(model.test, "soft_nms", None) is not None:
        raise SdkError("test.soft_nms: no exported format has soft-NMS; set it to None and measure what that costs")


def suppress_by_torchvision(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    """``Suppress`` by torchvision's operator; ``most`` is left to whoever takes the best of all classes."""
    image, label, box = (scores > 0).nonzero(as_tuple=True)
    # In double precision boxes of other images and classes are moved away without changing an overlap.
    own = boxes[image, box].double()
    span = boxes.double().abs().max() + 1
    moved = own + ((image * scores.shape[1] + label) * 2 * span)[:, None]
    # In a program torchvision's operator is taken to keep two boxes or more: two stand aside, and are left out after.
    aside = torch.tensor(((-3.0, -3.0, -2.0, -2.0), (-5.0, -5.0, -4.0, -4.0)), dtype=torch.float64) * span
    values = torch.cat((scores[image, label, box].double(), torch.ones(2, dtype=torch.float64)))
    kept = torch.ops.torchvision.nms(torch.cat((moved, aside)), values, overlap)
    return torch.stack((image, label, box), dim=1)[kept[kept < image.shape[0]]]


@torch.library.custom_op("sdk_export::non_max_suppression", mutates_args=())
def suppress_by_onnx(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    """``Suppress`` under a name that the ONNX exporter writes as NonMaxSuppression."""
    return suppress_by_torchvision(boxes, scores, overlap, most)


@suppress_by_onnx.register_fake
def _(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    return boxes.new_empty((torch.library.get_ctx().new_dynamic_size(), 3), dtype=torch.int64)
