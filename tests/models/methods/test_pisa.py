"""Importance of examples, ranked by hand."""

from __future__ import annotations

import pytest
import torch

from sdk.models.losses import SmoothL1Loss
from sdk.models.losses.importance import classification_aware, negative_importance, positive_importance
from sdk.models.methods.pisa import PISARetinaHead, PISARoIHead, ScoreHLRSampler
from sdk.models.roi.box_head import BoxHead
from sdk.models.roi.extractor import roi_align_extractor
from sdk.models.structures import ImageBatch, Targets


def positives_by_hand(overlaps, objects, labels, losses, power, bias):
    """Ranks as the definition says, one example after another."""
    count = len(overlaps)
    most = max(labels.count(label) for label in labels)
    local = [
        overlaps[i] + most - sum(objects[j] == objects[i] and overlaps[j] > overlaps[i] for j in range(count))
        for i in range(count)
    ]
    rank = [sum(labels[j] == labels[i] and local[j] > local[i] for j in range(count)) for i in range(count)]
    weights = [(bias + (1 - bias) * (most - r) / most) ** power for r in rank]
    scale = sum(losses) / sum(w * loss for w, loss in zip(weights, losses, strict=True))
    return [w * scale for w in weights]


def test_positive_importance():
    torch.manual_seed(0)
    for _ in range(10):
        objects = torch.randint(0, 6, (30,))
        labels = torch.tensor([0, 1, 2, 0, 1, 0])[objects]
        overlaps, losses = torch.rand(30), torch.rand(30)
        got = positive_importance(overlaps, objects, labels, losses, power=2, bias=0.1)
        wanted = positives_by_hand(overlaps.tolist(), objects.tolist(), labels.tolist(), losses.tolist(), 2, 0.1)
        torch.testing.assert_close(got, torch.tensor(wanted))


def test_negative_importance():
    # Two clusters; within each the second best waits for all that are the best of their cluster.
    boxes = torch.tensor(
        [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8], [50, 50, 60, 60], [50, 50, 60, 59], [90, 90, 95, 95]]
    ).float()
    scores = torch.tensor([0.9, 0.8, 0.7, 0.2, 0.1, 0.3])
    order = negative_importance(scores, boxes, 0.5).argsort(descending=True)
    assert order.tolist() == [0, 5, 3, 1, 4, 2]


def test_negatives_are_chosen_and_weighed_by_rank():
    boxes = torch.tensor([[20.0 * i, 0.0, 20.0 * i + 10, 10.0] for i in range(6)])
    scores = torch.tensor([0.3, 0.01, 0.9, 0.02, 0.6, 0.03])
    losses = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0, 2.0])
    index, weights = ScoreHLRSampler()(scores, boxes, losses, 4)
    assert index[:3].tolist() == [2, 4, 0]
    assert int(index[3]) in (1, 3, 5)
    raw = torch.tensor([1.0, 0.75, 0.5, 0.5]).sqrt()
    own = losses[index]
    torch.testing.assert_close(weights, raw * own.sum() / (own * raw).sum())
    index, weights = ScoreHLRSampler()(scores, boxes, losses, 2)
    assert index.tolist() == [2, 4]
    assert len(ScoreHLRSampler()(scores[:0], boxes[:0], losses[:0], 0)[0]) == 0


def test_classification_aware_loss():
    losses = torch.tensor([[1.0, 0.0, 0.0, 1.0], [3.0, 0.0, 0.0, 0.0]])
    scores = torch.tensor([0.5, 1.0], requires_grad=True)
    total = classification_aware(losses, scores)
    weights = [0.2 + 0.8 * 0.5, 0.2 + 0.8 * 1.0]
    assert float(total.detach()) == pytest.approx((2 * weights[0] + 3 * weights[1]) * 2 / sum(weights))
    total.backward()
    # Less score where the box is worse.
    assert scores.grad[0] < 0 < scores.grad[1]


def test_retina_head_without_objects():
    torch.manual_seed(0)
    head = PISARetinaHead(num_classes=3, in_channels=4, channels=4, depth=1, box_loss=SmoothL1Loss(beta=0.11))
    maps = [torch.randn(2, 4, 16 // 2**level, 16 // 2**level) for level in range(5)]
    images = ImageBatch(torch.zeros(2, 3, 128, 128), [(128, 128), (100, 128)])
    empty = Targets(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    one = Targets(boxes=torch.tensor([[20.0, 20.0, 80.0, 70.0]]), labels=torch.tensor([2]))
    for targets in ([empty, empty], [empty, one]):
        head.zero_grad()
        losses = head.loss(head(maps), images, targets)
        sum(losses.values()).backward()
        assert all(torch.isfinite(value) for value in losses.values())
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())


def test_second_stage_without_objects():
    torch.manual_seed(0)
    head = PISARoIHead(
        bbox_roi_extractor=roi_align_extractor(7, (4,)),
        bbox_head=BoxHead(num_classes=3, in_channels=4, fc_channels=8, box_loss=SmoothL1Loss()),
    )
    images = ImageBatch(torch.zeros(2, 3, 128, 128), [(128, 128), (100, 128)])
    features = [torch.randn(2, 4, 32, 32)]
    low = torch.rand(40, 2) * 50
    proposals = torch.cat((low, low + 4 + torch.rand(40, 2) * 40), dim=1)
    empty = Targets(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    one = Targets(boxes=torch.tensor([[10.0, 10.0, 60.0, 50.0]]), labels=torch.tensor([2]))
    for targets in ([empty, empty], [empty, one]):
        head.zero_grad()
        losses = head.loss(features, [proposals, proposals], images, targets)
        sum(losses.values()).backward()
        assert all(torch.isfinite(value) for value in losses.values())
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())
