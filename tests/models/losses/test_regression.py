"""Losses on codes against their formulas, and the balanced L1 loss against its published gradient."""

from __future__ import annotations

import math

import pytest
import torch

from sdk.models.losses import BalancedL1Loss, L1Loss, SmoothL1Loss

CODES = {
    "l1": (L1Loss(weight=3.0), lambda d: 3 * d),
    "smooth": (SmoothL1Loss(beta=0.5, weight=3.0), lambda d: 3 * (d * d if d < 0.5 else d - 0.25)),
}


@pytest.mark.parametrize("kind", CODES)
def test_formula(kind):
    loss, formula = CODES[kind]
    torch.manual_seed(0)
    pred, target, weight = torch.randn(5, 4), torch.randn(5, 4), torch.rand(5, 4)
    each = [formula(abs(p - t)) for p, t in zip(pred.flatten().tolist(), target.flatten().tolist(), strict=True)]
    total = sum(w * value for w, value in zip(weight.flatten().tolist(), each, strict=True))
    assert float(loss(pred, target)) == pytest.approx(sum(each), rel=1e-4)
    assert float(loss(pred, target, weight, 6.0)) == pytest.approx(total / 6, rel=1e-4)


def test_balanced_l1_gradient():
    x = torch.tensor([[0.003, 0.05, -0.1, 0.5, 0.99, 1.5, -3.0]], dtype=torch.float64, requires_grad=True)
    BalancedL1Loss()(x, torch.zeros_like(x)).backward()
    # Equation 9: alpha ln(b |x| + 1) below one, gamma from there on, with alpha ln(b + 1) = gamma.
    b = math.exp(1.5 / 0.5) - 1
    expected = [math.copysign(0.5 * math.log(b * abs(v) + 1) if abs(v) < 1 else 1.5, v) for v in x.tolist()[0]]
    torch.testing.assert_close(x.grad, torch.tensor([expected], dtype=torch.float64), rtol=1e-6, atol=0)


def test_balanced_l1_is_continuous():
    low, high = (
        BalancedL1Loss()(torch.tensor([1 + step], dtype=torch.float64), torch.zeros(1)) for step in (-1e-7, 1e-7)
    )
    assert abs(float(low) - float(high)) < 1e-5
