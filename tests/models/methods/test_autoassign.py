"""AutoAssign: the center prior and the confidences of points, point by point.

Shape letters: P points, K classes, N objects of an image.
"""

from __future__ import annotations

import math

import pytest
import torch
from plain_boxes import giou, iou

from sdk.models.dense.points import level_points
from sdk.models.methods.autoassign import AutoAssignHead, CenterPrior
from sdk.models.methods.fcos import STRIDES
from sdk.models.structures import ImageBatch, Targets

SIZES = [(8, 10), (4, 5), (2, 3), (1, 2), (1, 1)]
BOXES = torch.tensor([[3.0, 5.0, 40.0, 50.0], [20.0, 10.0, 75.0, 60.0], [30.0, 2.0, 62.0, 30.0]])
LABELS = torch.tensor([1, 0, 1])
TARGET = Targets(BOXES, LABELS)
EMPTY = Targets(BOXES[:0], LABELS[:0])


def points_by_hand():
    """(x, y, stride) of every point: the corners of the cells."""
    return [
        (float(column * stride), float(row * stride), stride)
        for (height, width), stride in zip(SIZES, STRIDES, strict=True)
        for row in range(height)
        for column in range(width)
    ]


def inside(x, y, box):
    return box[0] < x < box[2] and box[1] < y < box[3]


def prior_by_hand(mean, sigma):
    """(P, N) weights: Gaussians around the centres, zero outside the objects."""
    rows = []
    for x, y, stride in points_by_hand():
        row = []
        for box, label in zip(BOXES.tolist(), LABELS.tolist(), strict=True):
            value = 1.0
            for place, low, high, m, s in zip((x, y), box[:2], box[2:], mean[label], sigma[label], strict=True):
                offset = (place - (low + high) / 2) / stride
                value *= math.exp(-((offset - m) ** 2) / (2 * s**2))
            row.append(value if inside(x, y, box) else 0.0)
        rows.append(row)
    return rows


def test_center_prior():
    torch.manual_seed(0)
    prior = CenterPrior(2)
    torch.nn.init.normal_(prior.mean)
    torch.nn.init.uniform_(prior.sigma, 0.5, 2)
    points = torch.tensor(points_by_hand())
    flags = torch.tensor([[inside(x, y, box) for box in BOXES.tolist()] for x, y, _ in points_by_hand()])
    got = prior(points[:, :2], points[:, 2], TARGET, flags)
    torch.testing.assert_close(got.detach(), torch.tensor(prior_by_hand(prior.mean.tolist(), prior.sigma.tolist())))
    # A new prior is highest, one, at the very centre.
    centre = CenterPrior(2)(torch.tensor([[47.5, 35.0]]), torch.tensor([8.0]), TARGET, torch.ones(1, 3))
    assert float(centre[0, 1].detach()) == 1


def random_outputs(images):
    """Logits (B, K, H, W), distances (B, 4, H, W) and objectness (B, 1, H, W) of each level."""
    torch.manual_seed(1)
    outputs = [], [], []
    for (height, width), stride in zip(SIZES, STRIDES, strict=True):
        outputs[0].append(torch.randn(images, 2, height, width, requires_grad=True))
        outputs[1].append((stride * (1 + torch.rand(images, 4, height, width) * 4)).requires_grad_(True))
        outputs[2].append(torch.randn(images, 1, height, width, requires_grad=True))
    return outputs


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def predictions(outputs, image):
    """Joint score of each class, and box, of every point."""
    joint, boxes = [], []
    flat = [torch.cat([m[image].detach().flatten(1) for m in maps], dim=1).t().tolist() for maps in outputs]
    for (x, y, _), logits, sides, (objectness,) in zip(points_by_hand(), *flat, strict=True):
        joint.append([sigmoid(logit) * sigmoid(objectness) for logit in logits])
        boxes.append((x - sides[0], y - sides[1], x + sides[2], y + sides[3]))
    return joint, boxes


def positive_by_hand(joint, boxes, prior):
    total = 0.0
    for number, (box, label) in enumerate(zip(BOXES.tolist(), LABELS.tolist(), strict=True)):
        confidence = [j[label] * math.exp(-5 * (1 - giou(own, box))) for j, own in zip(joint, boxes, strict=True)]
        weight = [math.exp(3 * c) * row[number] for c, row in zip(confidence, prior, strict=True)]
        total -= math.log(sum(c * w for c, w in zip(confidence, weight, strict=True)) / sum(weight))
    return 0.25 * total


def negative_by_hand(joint, boxes, objects):
    weights = [[1.0, 1.0] for _ in joint]
    for box, label in objects:
        own = [i for i, (x, y, _) in enumerate(points_by_hand()) if inside(x, y, box)]
        gain = {i: 1 / (1 - max(iou(boxes[i], other) for other, _ in objects)) for i in own}
        low, high = min(gain.values()), max(gain.values())
        for i in own:
            weights[i][label] = 1 - (gain[i] - low) / (high - low)
    total = 0.0
    for row, own in zip(joint, weights, strict=True):
        for p, weight in zip(row, own, strict=True):
            total -= (p * weight) ** 2 * math.log(1 - p * weight)
    return 0.75 * total


def test_losses():
    head = AutoAssignHead(num_classes=2)
    torch.nn.init.normal_(head.center_prior.mean, std=0.3)
    outputs = random_outputs(2)
    images = ImageBatch(torch.zeros(2, 3, 64, 80), [(64, 80)] * 2)
    got = head.loss(outputs, images, [TARGET, EMPTY])
    prior = prior_by_hand(head.center_prior.mean.tolist(), head.center_prior.sigma.tolist())
    objects = list(zip(BOXES.tolist(), LABELS.tolist(), strict=True))
    first, second = predictions(outputs, 0), predictions(outputs, 1)
    mass = sum(sum(row) for row in prior)
    wanted = {
        "loss_pos": positive_by_hand(*first, prior) / 3,
        "loss_neg": (negative_by_hand(*first, objects) + negative_by_hand(*second, [])) / mass,
        "loss_center": 0.75 * (3 / mass + 0) / 2,
    }
    for name, value in got.items():
        assert float(value.detach()) == pytest.approx(wanted[name], rel=1e-4), name


def test_only_negatives_learn_without_objects():
    head, outputs = AutoAssignHead(num_classes=2), random_outputs(1)
    images = ImageBatch(torch.zeros(1, 3, 64, 80), [(64, 80)])
    losses = head.loss(outputs, images, [EMPTY])
    assert float(losses["loss_pos"].detach()) == float(losses["loss_center"].detach()) == 0
    assert float(losses["loss_neg"].detach()) == pytest.approx(negative_by_hand(*predictions(outputs, 0), []), rel=1e-4)
    sum(losses.values()).backward()
    learnt = [any(float(m.grad.abs().sum()) > 0 for m in maps) for maps in outputs]
    assert learnt == [True, False, True]
    assert head.center_prior.mean.grad is not None
    assert head.center_prior.sigma.grad is not None


def test_perfect_predictions_cost_nothing():
    head = AutoAssignHead(num_classes=2)
    points = torch.cat(level_points(SIZES, STRIDES, torch.device("cpu"), offset=0.0))
    boxes = BOXES[1].expand(len(points), 4)
    loss = head.positive_loss(
        torch.ones(len(points), 2), boxes, Targets(BOXES[1:2], LABELS[1:2]), torch.rand(len(points), 1)
    )
    torch.testing.assert_close(loss, torch.tensor(0.0), rtol=0, atol=1e-5)
