"""Hard example mining: which regions are chosen."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sdk.models.assigners import BACKGROUND, IGNORED, Assignment
from sdk.models.methods.ohem import OHEMRoIHead
from sdk.models.roi.box_head import BoxHead
from sdk.models.roi.extractor import roi_align_extractor
from sdk.models.samplers import OHEMSampler
from sdk.models.structures import Targets


def test_the_worst_are_chosen():
    matched = torch.tensor([0, BACKGROUND, 1, IGNORED, BACKGROUND, 0, BACKGROUND])
    losses = torch.tensor([0.1, 0.5, 0.9, 9.0, 0.7, 0.4, 0.6])
    positive, negative = OHEMSampler(num=4, pos_fraction=0.5)(Assignment(matched, torch.zeros(7)), losses)
    assert positive.tolist() == [2, 5]
    assert negative.tolist() == [4, 6]


def test_regions_of_the_highest_loss():
    torch.manual_seed(0)
    head = OHEMRoIHead(
        bbox_roi_extractor=roi_align_extractor(7, (4,)),
        bbox_head=BoxHead(num_classes=3, in_channels=4, fc_channels=8),
    )
    torch.nn.init.normal_(head.bbox_head.fc_cls.weight)
    head.hard_examples = OHEMSampler(num=8, pos_fraction=0.25)
    low = torch.rand(40, 2) * 50
    proposals = torch.cat((low, low + 4 + torch.rand(40, 2) * 40), dim=1)
    target = Targets(boxes=torch.tensor([[10.0, 10.0, 40.0, 40.0]]), labels=torch.tensor([1]))
    features = [torch.randn(2, 4, 32, 32)]
    empty = Targets(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    first, second = head.sample(features, [proposals, proposals], [target, empty])
    assert (first.labels == 1).all()
    assert len(second.boxes) == 8
    assert len(second.labels) == 0
    # All 40 proposals of the second image are background.
    logits, _ = head.boxes_forward(features, torch.cat((torch.ones(40, 1), proposals), dim=1))
    losses = F.cross_entropy(logits, torch.full((40,), 3), reduction="none")
    assert second.index.tolist() == losses.topk(8).indices.tolist()
