"""Losses on overlaps, box by box."""

from __future__ import annotations

import math

import pytest
import torch
from plain_boxes import centre_and_size, giou, iou, random_boxes

from sdk.models.losses import BoundedIoULoss, CIoULoss, DIoULoss, GIoULoss, IoULoss

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


def diou(pred, target):
    """IoU less the squared distance of the centres over the squared diagonal of the box around both."""
    (px, py, *_), (x, y, *_) = centre_and_size(pred), centre_and_size(target)
    width = max(pred[2], target[2]) - min(pred[0], target[0])
    height = max(pred[3], target[3]) - min(pred[1], target[1])
    return iou(pred, target) - ((px - x) ** 2 + (py - y) ** 2) / (width**2 + height**2)


def ciou(pred, target):
    """DIoU less the weighted difference of the angles of the diagonals."""
    (*_, pw, ph), (*_, w, h) = centre_and_size(pred), centre_and_size(target)
    apart = 4 / math.pi**2 * (math.atan(w / h) - math.atan(pw / ph)) ** 2
    return diou(pred, target) - (apart**2 / (1 - iou(pred, target) + apart) if apart else 0)


FORMULAS = {
    "linear": (IoULoss(shape="linear"), lambda a, b: 1 - max(iou(a, b), 1e-6)),
    "log": (IoULoss(), lambda a, b: -math.log(max(iou(a, b), 1e-6))),
    "giou": (GIoULoss(weight=2.0), lambda a, b: 2 * (1 - giou(a, b))),
    "diou": (DIoULoss(), lambda a, b: 1 - diou(a, b)),
    "ciou": (CIoULoss(weight=3.0), lambda a, b: 3 * (1 - ciou(a, b))),
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


# The weight of CIoU's last term is a constant of the gradient, so that this is not the derivative of the loss.
@pytest.mark.parametrize("kind", [kind for kind in FORMULAS if kind != "ciou"])
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


def test_ciou_takes_the_weight_of_the_ratio_as_constant():
    pred, target = PRED[2:12].double(), TARGET[2:12].double()

    def terms(x):
        size, wanted = x[:, 2:] - x[:, :2], target[:, 2:] - target[:, :2]
        apart = 4 / math.pi**2 * ((wanted[:, 0] / wanted[:, 1]).atan() - (size[:, 0] / size[:, 1]).atan()) ** 2
        return DIoULoss().each(x, target), apart

    distance, apart = terms(pred)
    overlap = torch.tensor([iou(a, b) for a, b in zip(pred.tolist(), target.tolist(), strict=True)])
    share = apart / (1 - overlap + apart)
    ours, plain = pred.clone().requires_grad_(True), pred.clone().requires_grad_(True)
    CIoULoss()(ours, target).backward()
    distance, apart = terms(plain)
    (distance + share * apart).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-4, atol=1e-6)
