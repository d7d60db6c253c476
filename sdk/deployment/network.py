"""A detector as one function of tensors, in operations that exported formats hold.

Nothing branches on what an image shows: candidates are a fixed number, those that do not count score less than zero,
and results are padded.

Shape letters: B images, P x Q padded pixels, N candidates of an image, K classes, S boxes that suppression keeps,
M detections of an image at most.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision.nms)
from torch import Tensor, nn

from ..datasets.transforms import Preprocessing
from ..errors import SdkError
from ..models.coders import BoxCoder
from ..models.dense.head import by_prior, feature_sizes
from ..models.dense.points import level_points
from ..models.detectors.single_stage import SingleStageDetector
from ..models.folding import for_inference, in_standard_order
from ..models.methods.fcos import FCOSHead
from ..models.methods.retinanet import RetinaHead
from ..models.settings import DenseTest
from .resizing import ResizeAndNormalize

NOT_THERE = -1.0
"""Score of what is no candidate."""

Suppress = Callable[[Tensor, Tensor, float, int], Tensor]
"""(B, N, 4) boxes, (B, K, N) scores of each class, the greatest overlap and the most boxes of a class to the (S, 3)
image, class and box of those that are kept; scores of zero and below do not count. ONNX NonMaxSuppression."""


class Level(NamedTuple):
    """One pyramid level: (B, P, K) scores, (B, P, 4) codes, (P, ...) priors and (B, P) factors of scores or none."""

    scores: Tensor
    codes: Tensor
    priors: Tensor
    factors: Tensor | None


def retina_levels(head: Any, outputs: tuple[list[Tensor], ...]) -> list[Level]:
    logits, codes = outputs
    priors = head.anchors(feature_sizes(logits), logits[0].device)
    return [
        Level(by_prior(one, head.num_classes).sigmoid(), by_prior(code, 4), prior, None)
        for one, code, prior in zip(logits, codes, priors, strict=True)
    ]


def fcos_levels(head: Any, outputs: tuple[list[Tensor], ...]) -> list[Level]:
    logits, distances, centerness = outputs
    priors = level_points(feature_sizes(logits), head.strides, logits[0].device)
    return [
        Level(
            by_prior(one, head.num_classes).sigmoid(), by_prior(code, 4), prior, by_prior(factor, 1)[..., 0].sigmoid()
        )
        for one, code, prior, factor in zip(logits, distances, priors, centerness, strict=True)
    ]


READ: dict[Any, Callable[[Any, tuple[list[Tensor], ...]], list[Level]]] = {
    RetinaHead.predict: retina_levels,
    FCOSHead.predict: fcos_levels,
}
"""How the outputs of a head are read, by the method with which it predicts: heads that inherit it are read alike."""


class ExportedNetwork(nn.Module):
    """Images to (B, M, 4) boxes, (B, M) scores, (B, M) labels and (B,) counts.

    Boxes are xyxy in each image's own pixels, best first; behind the count they are zero, labels -1.
    """

    def __init__(self, model: nn.Module, suppress: Suppress) -> None:
        super().__init__()
        require_exportable(model)
        self.model: Any = in_standard_order(for_inference(copy.deepcopy(model).cpu())).requires_grad_(False)
        self.suppress = suppress

    def detect(self, pixels: Tensor, sizes: Tensor, scales: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """pixels: (B, 3, P, Q) float32 normalized, zero padded. sizes: (B, 2) float32 valid (h, w). scales: (B, 2)
        float32 (x, y) factors by which the images were resized."""
        head, test = self.model.bbox_head, self.model.test
        # Not by way of an ImageBatch, whose checks would fix the number of images.
        outputs = head(self.model.neck(self.model.backbone(pixels)))
        boxes, scores, labels = candidates(READ[type(head).predict](head, outputs), head.coder, test, sizes)
        return suppressed(boxes / scales.repeat(1, 2)[:, None], scores, labels, head.num_classes, test, self.suppress)


class Inside(ExportedNetwork):
    """(B, 3, H, W) uint8 RGB images of one size to detections: resizing and normalization are inside."""

    def __init__(self, model: nn.Module, suppress: Suppress, preprocessing: Preprocessing) -> None:
        super().__init__(model, suppress)
        self.prepare = ResizeAndNormalize(preprocessing)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        pixels, size, scale = self.prepare(images)
        count = images.shape[0]
        return self.detect(pixels, size.expand(count, 2), scale.expand(count, 2))


class Outside(ExportedNetwork):
    """Normalized and padded pixels, valid sizes and factors, as of ``detect``, to detections."""

    def forward(self, pixels: Tensor, sizes: Tensor, scales: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.detect(pixels, sizes, scales)


def require_exportable(model: nn.Module) -> None:
    """Raises SdkError with the reason where a detector cannot be exported."""
    kind = type(model).__name__
    if not isinstance(model, SingleStageDetector) or type(model).outputs is not SingleStageDetector.outputs:
        raise SdkError(f"{kind}: cannot be exported yet; expected a detector with one dense head")
    head = type(model.bbox_head)
    if head.predict not in READ:
        raise SdkError(f"{head.__name__}: its predictions cannot be exported yet; expected a RetinaNet or FCOS head")
    if model.test.soft_nms is not None:
        raise SdkError("test.soft_nms: no exported format has soft-NMS; set it to None and measure what that costs")


def candidates(
    levels: Sequence[Level], coder: BoxCoder, test: DenseTest, sizes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The best pairs of prior and class of every level: (B, N, 4) boxes in batch pixels, (B, N) scores and labels."""
    boxes, values, labels = [], [], []
    for level in levels:
        classes = level.scores.shape[2]
        flat = torch.where(level.scores > test.score_threshold, level.scores, NOT_THERE).flatten(1)
        # With as many more that do not count there are enough of them on the smallest map.
        filling = flat.new_full((1, test.candidates_per_level), NOT_THERE).expand(flat.shape[0], -1)
        value, index = torch.cat((flat, filling), dim=1).topk(test.candidates_per_level, dim=1)
        prior = torch.where(value > 0, torch.div(index, classes, rounding_mode="floor"), 0)
        codes = level.codes.gather(1, prior[..., None].expand(-1, -1, 4))
        boxes.append(coder.decode(level.priors[prior], codes))
        if level.factors is not None:
            value = torch.where(value > 0, value * level.factors.gather(1, prior), NOT_THERE)
        values.append(value)
        labels.append(index % classes)
    found = torch.cat(boxes, dim=1)
    if coder.clip:  # type: ignore[attr-defined]
        found = torch.minimum(found.clamp(min=0), sizes.flip(1).repeat(1, 2)[:, None])
    return found, torch.cat(values, dim=1), torch.cat(labels, dim=1)


def suppressed(
    boxes: Tensor, scores: Tensor, labels: Tensor, classes: int, test: DenseTest, suppress: Suppress
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Candidates, as of ``candidates``, to what ``ExportedNetwork`` gives."""
    own = labels[:, None] == torch.arange(classes)[:, None]
    kept = suppress(boxes, torch.where(own, scores[:, None], NOT_THERE), test.nms_threshold, test.max_per_image)
    stays = torch.zeros_like(scores).index_put(
        (kept[:, 0], kept[:, 2]), torch.ones_like(kept[:, 0], dtype=scores.dtype)
    )
    values, order = torch.where(stays > 0, scores, NOT_THERE).topk(test.max_per_image, dim=1)
    there = values > 0
    found = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    return (
        torch.where(there[..., None], found, 0.0),
        torch.where(there, values, 0.0),
        torch.where(there, labels.gather(1, order), -1),
        there.sum(dim=1),
    )


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
