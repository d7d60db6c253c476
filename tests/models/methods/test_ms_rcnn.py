"""Mask Scoring R-CNN: the IoU that is learnt, against counting pixels."""

from __future__ import annotations

import torch

from sdk.models.methods.ms_rcnn import mask_overlaps, visible_shares
from sdk.models.roi.rois import SampledRegions
from sdk.models.structures import Targets


def regions_of(boxes: torch.Tensor, matched: torch.Tensor, target: Targets) -> SampledRegions:
    count = len(boxes)
    return SampledRegions(
        boxes=boxes,
        matched=matched,
        matched_boxes=target.boxes[matched],
        labels=target.labels[matched],
        is_ground_truth=torch.zeros(count, dtype=torch.bool),
        overlaps=torch.zeros(count),
        index=torch.arange(count),
    )


def target_with(mask: torch.Tensor) -> Targets:
    return Targets(torch.tensor([[4.0, 4.0, 36.0, 36.0]]), torch.tensor([0]), masks=mask[None])


def test_share_of_the_mask_inside_a_box() -> None:
    mask = torch.zeros(40, 40, dtype=torch.uint8)
    mask[4:36, 4:36] = 1
    target = target_with(mask)
    boxes = torch.tensor([[4.0, 4.0, 20.0, 36.0], [0.0, 0.0, 40.0, 40.0], [30.9, 30.9, 60.0, 60.0]])
    shares = visible_shares([regions_of(boxes, torch.zeros(3, dtype=torch.int64), target)], [target])
    torch.testing.assert_close(shares, torch.tensor([0.5, 1.0, 36 / 1024]), rtol=1e-5, atol=1e-6)


def test_overlap_with_the_whole_object() -> None:
    mask = torch.zeros(40, 40, dtype=torch.uint8)
    mask[4:36, 4:36] = 1
    target = target_with(mask)
    # The box holds half of the object and its mask is predicted in full: 1 of 2 parts overlap.
    regions = regions_of(torch.tensor([[4.0, 4.0, 20.0, 36.0]]), torch.tensor([0]), target)
    overlap = mask_overlaps(torch.full((1, 28, 28), 5.0), [regions], [target])
    torch.testing.assert_close(overlap, torch.tensor([0.5]), rtol=1e-4, atol=1e-4)
