"""How Dynamic R-CNN adapts, against figures by hand."""

from __future__ import annotations

import pytest
import torch

from sdk.models.methods.dynamic_rcnn import DynamicRoIHead
from sdk.models.roi.box_head import BoxHead
from sdk.models.structures import Targets


def test_threshold_and_beta_follow_the_statistics():
    head = DynamicRoIHead(
        bbox_roi_extractor=torch.nn.Identity(),
        bbox_head=BoxHead(num_classes=2, in_channels=4, fc_channels=8),
        overlap_rank=3,
        code_rank=2,
        interval=2,
    )
    truth = torch.tensor([[0.0, 0.0, 100.0, 100.0]])
    target = Targets(boxes=truth, labels=torch.tensor([0]))
    # Overlaps with the object: 0.9, 0.8 and 0.6; the object itself counts as a proposal of overlap 1.
    proposals = torch.tensor([[0.0, 0.0, 90.0, 100.0], [0.0, 0.0, 80.0, 100.0], [0.0, 0.0, 60.0, 100.0]])
    for _ in range(2):
        head.sample([], [proposals], [target])
        assert head.assigner.positive == 0.5
    head.sample([], [proposals], [target])
    # The third largest of 1, 0.9, 0.8, 0.6.
    assert head.assigner.positive == pytest.approx(0.8)
    assert head.assigner.negative == pytest.approx(0.8)
    # Shifts in prior widths, over the deviation 0.1, averaged over x and y: 0 of the object itself, and
    # (5 / 90) / 0.1 / 2 of the first proposal, the second smallest.
    assert head.bbox_head.box_loss.beta == pytest.approx(5 / 90 / 0.1 / 2)


def test_images_without_objects():
    head = DynamicRoIHead(
        bbox_roi_extractor=torch.nn.Identity(),
        bbox_head=BoxHead(num_classes=2, in_channels=4, fc_channels=8),
        interval=1,
    )
    before = head.bbox_head.box_loss
    empty = Targets(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    for proposals in (torch.rand(5, 4), torch.zeros(0, 4)):
        head.sample([], [proposals], [empty])
    assert head.assigner.positive == 0.4
    assert head.bbox_head.box_loss is before
