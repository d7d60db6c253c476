"""The contract of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..roi.masks import MaskBranch
from ..structures import Detections, ImageBatch, Targets

T = TypeVar("T")


class Candidates(NamedTuple):
    """What a detector finds before any box suppresses another.

    boxes: of each image. masks: the mask branch on this batch, where there is one.
    """

    boxes: list[Detections]
    masks: MaskBranch | None = None


class Detector(nn.Module):
    """A detector: training and prediction under two names.

    ``forward(images, targets)`` returns loss terms, whose sum is minimized; ``predict(images)`` returns one
    ``Detections`` for each image. ``test`` holds the test-time settings, ``num_classes`` the class count,
    ``classes`` the names in label order where they are known.
    """

    num_classes: int
    recipe: Any
    classes: tuple[str, ...] | None = None
    test: Any

    def forward(self, images: ImageBatch, targets: Sequence[Targets]) -> dict[str, Tensor]:
        """Loss terms of a batch; each a scalar."""
        raise NotImplementedError

    def predict(self, images: ImageBatch) -> list[Detections]:
        """Detections of each image, highest score first."""
        raise NotImplementedError


def full_precision(outputs: T) -> T:
    """Network outputs (tensors in any nesting of lists and tuples) as float32, for losses and box arithmetic."""
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs  # type: ignore[return-value]
    if isinstance(outputs, (list, tuple)):
        return type(outputs)(full_precision(value) for value in outputs)  # type: ignore[call-arg]
    return outputs
