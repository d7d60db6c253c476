"""LD: Zheng et al., "Localization Distillation for Dense Object Detection".

GFL that also learns from the distributions over distances of a teacher, a larger GFL that is already trained.

Shape letters: B images, L levels, N positive points, R the greatest distance of a distribution in strides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.resnet import ResNet
from ..dense.head import all_by_prior, feature_sizes
from ..detectors.single_stage import SingleStageDetector
from ..losses.reduce import weighted_sum
from ..recipe import Recipe
from ..settings import DenseTest
from ..structures import ImageBatch, Targets
from .atss import output_pyramid
from .gfl import GFLHead


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Divergence of softened distributions (eq. 5), times the squared temperature: (N, R + 1) logits to (N,)."""
    soft = F.softmax(teacher_logits / temperature, dim=1)
    divergence = F.kl_div(F.log_softmax(logits / temperature, dim=1), soft, reduction="none")
    return divergence.mean(dim=1) * temperature**2


class DistilledDetector(SingleStageDetector):
    """A GFL detector with a teacher.

    The teacher is no part of the state dict nor of the parameters. It is built when it is first needed, which is in
    training only, and keeps the class count of its own recipe, since what it teaches knows no classes.

    teacher_recipe: gives the teacher's recipe. ``teacher_weights`` says what the teacher starts from when it is built:
    ``published``, a file, or None for random weights.
    """

    bbox_head: GFLHead

    def __init__(
        self,
        *,
        backbone: nn.Module,
        neck: nn.Module,
        bbox_head: GFLHead,
        test: DenseTest,
        teacher_recipe: Callable[[], Recipe],
        temperature: float = 10.0,
        weight: float = 0.25,
    ) -> None:
        super().__init__(backbone=backbone, neck=neck, bbox_head=bbox_head, test=test)
        self.temperature, self.distillation_weight = temperature, weight
        self.teacher_recipe = teacher_recipe
        self.teacher_weights: str | PathLike[str] | None = None
        # In a tuple, so that the teacher is not registered as a part.
        self._teacher: tuple[SingleStageDetector, ...] = ()

    @property
    def teacher(self) -> SingleStageDetector:
        """The teacher, in evaluation mode, on the student's device."""
        if not self._teacher:
            recipe = self.teacher_recipe()
            built: Any = recipe.build(recipe.num_classes)
            if self.teacher_weights is not None:
                from ..weights import load_weights

                load_weights(built, recipe, self.teacher_weights)
            device = next(self.parameters()).device
            self._teacher = (built.to(device).eval().requires_grad_(False),)
        return self._teacher[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for teacher in self._teacher:
            teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, images: ImageBatch, targets: Sequence[Targets]) -> dict[str, Tensor]:
        head, outputs = self.bbox_head, self.outputs(images)
        with torch.no_grad():
            _, taught = self.teacher.outputs(images)
        wanted = head.side_targets(feature_sizes(outputs[0]), targets)
        bins = head.longest + 1
        pred, soft = (
            all_by_prior(sides, 4 * bins)[wanted.positive].reshape(-1, bins) for sides in (outputs[1], taught)
        )
        loss = distillation_loss(pred, soft, self.temperature).view(-1, 4).mean(dim=1)
        loss_ld = self.distillation_weight * weighted_sum(loss, head.confidence(outputs[0], wanted), 1.0)
        return {**head.losses_with(outputs, wanted), "loss_ld": loss_ld}


def ld(num_classes: int, *, backbone: Callable[[], ResNet], teacher_recipe: Callable[[], Recipe]) -> DistilledDetector:
    """GFL on a backbone with four stages, taught by the detector of ``teacher_recipe``."""
    body = backbone()
    return DistilledDetector(
        backbone=body,
        neck=output_pyramid(body.out_channels),
        bbox_head=GFLHead(num_classes=num_classes),
        test=DenseTest(nms_threshold=0.6),
        teacher_recipe=teacher_recipe,
    )
