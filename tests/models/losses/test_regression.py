"""The balanced L1 loss against its published gradient."""

from __future__ import annotations

import math

import torch
from sdk.models.losses import BalancedL1Loss


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
