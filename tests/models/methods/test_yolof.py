"""YOLOF: joint scores and losses, anchor by anchor.

Shape letters: B images, H x W locations, A anchors of a location, K classes.
"""

from __future__ import annotations

import math

import pytest
import torch
from plain_boxes import giou

from sdk.models.assigners import IGNORED
from sdk.models.methods.yolof import YOLOFHead
from sdk.models.structures import ImageBatch, Targets


class Constant(torch.nn.Module):
    """Stands in for a layer: always gives the same map."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return self.value


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def joint(scores, objectness, classes):
    """The logits that the head makes of (1, A K, H, W) class and (1, A, H, W) objectness logits."""
    head = YOLOFHead(num_classes=classes, channels=32)
    head.cls_subnet = head.bbox_subnet = torch.nn.Identity()
    head.cls_score, head.object_pred = Constant(scores), Constant(objectness)
    return head([torch.zeros(1, 32, *scores.shape[2:])])[0][0]


def test_joint_logit_is_that_of_the_product():
    torch.manual_seed(0)
    scores, objectness = 3 * torch.randn(1, 15, 2, 3), 3 * torch.randn(1, 5, 2, 3)
    got = joint(scores, objectness, 3).sigmoid()
    for anchor in range(5):
        for label in range(3):
            for y in range(2):
                for x in range(3):
                    channel = 3 * anchor + label
                    wanted = sigmoid(float(scores[0, channel, y, x])) * sigmoid(float(objectness[0, anchor, y, x]))
                    assert float(got[0, channel, y, x]) == pytest.approx(wanted, rel=1e-4)


def test_joint_logit_of_extreme_logits():
    scores = torch.tensor([1000.0, -1000.0, 0.0, 0.0, 0.0]).view(1, 5, 1, 1).requires_grad_(True)
    objectness = torch.tensor([0.0, 0.0, 1000.0, -1000.0, 0.0]).view(1, 5, 1, 1).requires_grad_(True)
    both = joint(scores, objectness, 1)
    both.sum().backward()
    assert both.isfinite().all()
    assert scores.grad.isfinite().all()
    assert objectness.grad.isfinite().all()
    # A certain half leaves the other's probability at least; a hopeless half rules the product.
    assert (both.flatten() > 0).tolist() == [True, False, True, False, False]


def focal(logit, positive):
    p = sigmoid(logit)
    return -0.25 * (1 - p) ** 2 * math.log(p) if positive else -0.75 * p**2 * math.log(1 - p)


def moved(anchor, code):
    """An anchor moved by its code: by at most 32 pixels."""
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    dx, dy = (min(max(shift, -32.0), 32.0) for shift in (code[0] * width, code[1] * height))
    x, y = (anchor[0] + anchor[2]) / 2 + dx, (anchor[1] + anchor[3]) / 2 + dy
    half_w, half_h = width * math.exp(code[2]) / 2, height * math.exp(code[3]) / 2
    return x - half_w, y - half_h, x + half_w, y + half_h


def test_losses():
    torch.manual_seed(0)
    head = YOLOFHead(num_classes=3, channels=32)
    logits, codes = torch.randn(2, 15, 4, 5), 0.3 * torch.randn(2, 20, 4, 5)
    boxes = torch.tensor([[20.0, 30.0, 90.0, 80.0], [4.0, 8.0, 150.0, 120.0], [100.0, 5.0, 108.0, 12.0]])
    targets = [Targets(boxes, torch.tensor([2, 0, 1])), Targets(boxes[:0], torch.zeros(0, dtype=torch.int64))]
    images = ImageBatch(torch.zeros(2, 3, 128, 160), [(128, 160)] * 2)
    anchors, scores, boxes_of = [], [[], []], [[], []]
    for row in range(4):
        for column in range(5):
            for number, scale in enumerate((1, 2, 4, 8, 16)):
                x, y, half = 32 * column, 32 * row, 16 * scale
                anchors.append((x - half, y - half, x + half, y + half))
                for image in range(2):
                    scores[image].append(logits[image, 3 * number : 3 * number + 3, row, column].tolist())
                    boxes_of[image].append(
                        moved(anchors[-1], codes[image, 4 * number : 4 * number + 4, row, column].tolist())
                    )
    cls = reg = 0.0
    counts = []
    for image, target in enumerate(targets):
        assignment, prior, truth = head.assigner(
            torch.tensor(boxes_of[image]), torch.tensor(anchors).float(), target.boxes
        )
        counts.append(max(int(assignment.positive.sum()), 1))
        for index, number in enumerate(assignment.matched.tolist()):
            if number != IGNORED:
                label = int(target.labels[number]) if number >= 0 else None
                cls += sum(focal(value, k == label) for k, value in enumerate(scores[image][index]))
        reg += sum(
            1 - giou(boxes_of[image][p], target.boxes[t].tolist())
            for p, t in zip(prior.tolist(), truth.tolist(), strict=True)
        )
    assert counts[0] > 4
    got = head.loss(([logits], [codes]), images, targets)
    assert float(got["loss_cls"]) == pytest.approx(cls / sum(counts), rel=1e-4)
    assert float(got["loss_bbox"]) == pytest.approx(reg / sum(counts), rel=1e-4)
