"""OHEM: Shrivastava et al., "Training Region-based Object Detectors with Online Hard Example Mining".

Faster R-CNN whose second stage looks at all proposals first and is trained on those that it classifies worst.

Shape letters: P proposals of one image, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.resnet import ResNet
from ..dense.anchor_targets import matched_objects
from ..detectors.two_stage import TwoStageDetector
from ..roi.box_head import RegionHead
from ..roi.rois import SampledRegions, assign_regions, image_rois
from ..roi.standard import StandardRoIHead
from ..samplers import OHEMSampler
from ..structures import Targets
from .faster_rcnn import faster_rcnn


class OHEMRoIHead(StandardRoIHead):
    """The second stage that chooses the regions it is trained on by their loss; ``parts`` as of ``StandardRoIHead``."""

    def __init__(
        self, *, bbox_roi_extractor: nn.Module, bbox_head: RegionHead, sampler: OHEMSampler | None = None, **parts: Any
    ) -> None:
        super().__init__(bbox_roi_extractor=bbox_roi_extractor, bbox_head=bbox_head, **parts)
        self.hard_examples = sampler or OHEMSampler()

    @torch.no_grad()
    def sample(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets]
    ) -> list[SampledRegions]:
        """The regions of the highest classification loss, image by image."""
        regions = []
        for image, (own, target) in enumerate(zip(proposals, targets, strict=True)):
            candidates = assign_regions(own, target, self.assigner, self.hard_examples.add_ground_truth)
            labels, _ = matched_objects(candidates.assignment, target, self.num_classes)
            logits, _ = self.boxes_forward(features, image_rois(candidates.boxes, image))
            losses = F.cross_entropy(logits, labels, reduction="none")
            regions.append(candidates.take(*self.hard_examples(candidates.assignment, losses), target))
        return regions


def ohem_faster_rcnn(num_classes: int, *, backbone: Callable[[], ResNet]) -> TwoStageDetector:
    """Faster R-CNN with hard example mining on a backbone with four stages."""
    return faster_rcnn(num_classes, backbone=backbone, roi_head=OHEMRoIHead)
