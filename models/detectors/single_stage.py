"""Detectors that predict from a grid of locations in one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.profiler import record_function

from ..dense.head import DenseHead
from ..settings import without_suppression
from ..structures import Detections, ImageBatch, Targets
from .base import Candidates, Detector, full_precision


class SingleStageDetector(Detector):
    """Backbone, neck and one dense head."""

    def __init__(self, *, backbone: nn.Module, neck: nn.Module, bbox_head: DenseHead, test: Any) -> None:
        super().__init__()
        self.backbone, self.neck, self.bbox_head, self.test = backbone, neck, bbox_head, test
        self.num_classes = bbox_head.num_classes

    def outputs(self, images: ImageBatch) -> tuple[list[Tensor], ...]:
        """The head's raw outputs, in float32."""
        return full_precision(self.bbox_head(self.neck(self.backbone(images.pixels))))

    def forward(self, images: ImageBatch, targets: Sequence[Targets]) -> dict[str, Tensor]:
        outputs = self.outputs(images)
        with record_function("losses"):
            return self.bbox_head.loss(outputs, images, targets)

    def predict(self, images: ImageBatch) -> list[Detections]:
        return self.bbox_head.predict(self.outputs(images), images, self.test)

    def candidates(self, images: ImageBatch) -> Candidates:
        """What is found before suppression."""
        return Candidates(self.bbox_head.predict(self.outputs(images), images, without_suppression(self.test)))
