"""The star of VarifocalNet and its loss, number by number."""

from __future__ import annotations

import math

import torch

from sdk.models.methods.vfnet import star_offsets, varifocal_loss


def test_taps_lie_on_the_box():
    distances = torch.tensor([16.0, 24.0, 32.0, 8.0]).view(1, 4, 1, 1)
    offsets = star_offsets(distances, 8).view(9, 2)
    regular = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    taps = [(y + float(dy), x + float(dx)) for (y, x), (dy, dx) in zip(regular, offsets, strict=True)]
    left, top, right, bottom = -2, -3, 4, 1
    assert taps == [(y, x) for y in (top, 0, bottom) for x in (left, 0, right)]


def test_varifocal_loss():
    torch.manual_seed(0)
    logits = torch.randn(4, 3)
    quality = torch.zeros(4, 3)
    quality[0, 1], quality[3, 2] = 0.8, 0.3
    total = 0.0
    for x, q in zip(logits.flatten().tolist(), quality.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        total += -q * (q * math.log(p) + (1 - q) * math.log(1 - p)) if q > 0 else -0.75 * p**2 * math.log(1 - p)
    torch.testing.assert_close(varifocal_loss(logits, quality, 2.0), torch.tensor(total / 2))
