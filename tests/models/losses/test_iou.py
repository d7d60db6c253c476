"""Losses on overlaps, box by box."""

from __future__ import annotations

import math

import pytest
import torch
from plain_boxes import centre_and_size, giou, iou, random_boxes
from sdk.models.losses import BoundedIoULoss, GIoULoss, IoULoss

PRED = random_boxes(40, seed=0, extent=30, least=5, most=40)
TARGET = random_boxes(40, seed=1, extent=30, least=5, most=40)
# One pair far apart, one the same.
PRED[0] += 500
PRED[1] = TARGET[1]


def bounded_iou(pred, target):
    """For each coordinate alone, the best IoU that the others still allow, through a smooth L1."""
    (px, py, pw, ph), (x, y, w, h) = centre_and_size(pred), centre_and_size(target)
    overlaps = [
        max(0.0, (w - 2 * abs(x - px)) / (w + 2 * abs(x - px))),
        max(0.0, (h - 2 * abs(y - py)) / (h + 2 * abs(y - py))),
        min(w / pw, pw / w),
        min(h / ph, ph / h),
    ]
    return [(1 - o) ** 2 / 0.4 if 1 - o < 0.2 else 1 - o - 0.1 for o in overlaps]


FORMULAS = {
    "linear": (IoULoss(shape="linear"), lambda a, b: 1 - max(iou(a, b), 1e-6)),
    "log": (IoULoss(), lambda a, b: -math.log(max(iou(a, b), 1e-6))),
    "giou": (GIoULoss(weight=2.0), lambda a, b: 2 * (1 - giou(a, b))),
    # Exact up to the published epsilon of a thousandth of a pixel.
    "bounded": (BoundedIoULoss(eps=1e-9), lambda a, b: sum(bounded_iou(a, b))),
}


@pytest.mark.parametrize("kind", FORMULAS)
def test_formula(kind):
    loss, formula = FORMULAS[kind]
    wanted = [formula(a, b) for a, b in zip(PRED.tolist(), TARGET.tolist(), strict=True)]
    assert float(loss(PRED, TARGET)) == pytest.approx(sum(wanted), rel=1e-4)
    weight = torch.rand(40, generator=torch.Generator().manual_seed(2))
    got = loss(PRED, TARGET, weight[:, None].expand(-1, 4), 7.0)
    assert float(got) == pytest.approx(sum(w * v for w, v in zip(weight.tolist(), wanted, strict=True)) / 7, rel=1e-4)


@pytest.mark.parametrize("kind", FORMULAS)
def test_gradient(kind):
    loss, _ = FORMULAS[kind]
    pred, target = PRED[2:12].double().requires_grad_(True), TARGET[2:12].double()
    assert torch.autograd.gradcheck(lambda x: loss(x, target), (pred,))


@pytest.mark.parametrize("kind", FORMULAS)
def test_boxes_that_are_the_same_cost_nothing(kind):
    loss, _ = FORMULAS[kind]
    assert float(loss(TARGET, TARGET)) == pytest.approx(0, abs=1e-3)


def test_giou_pulls_boxes_that_do_not_meet():
    pred = torch.tensor([[0.0, 0.0, 4.0, 4.0]], requires_grad=True)
    GIoULoss()(pred, torch.tensor([[10.0, 0.0, 14.0, 4.0]])).backward()
    # Its right side should move to the right.
    assert pred.grad is not None
    assert float(pred.grad[0, 2]) < 0
