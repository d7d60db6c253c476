"""Quality and distribution focal loss, element by element."""

from __future__ import annotations

import math

import torch

from sdk.models.methods.gfl import Integral, distribution_focal_loss, quality_focal_loss


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_quality_focal_loss():
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 3), torch.tensor([0, 3, 2, 3, 1, 1])
    quality = torch.tensor([0.7, 0.9, 0.0, 0.0, 1.0, 0.2])
    total = 0.0
    for row in range(6):
        for column in range(3):
            p = sigmoid(float(logits[row, column]))
            q = float(quality[row]) if int(labels[row]) == column else 0.0
            total += -(abs(q - p) ** 2) * ((1 - q) * math.log(1 - p) + q * math.log(p))
    got = quality_focal_loss(logits, labels, quality, torch.tensor(4.0))
    torch.testing.assert_close(got, torch.tensor(total / 4))


def test_distribution_focal_loss():
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 5), torch.tensor([0.0, 1.25, 3.9, 2.0])
    wanted = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        norm = sum(math.exp(x) for x in row)
        low = int(target)
        near = [math.log(math.exp(row[i]) / norm) for i in (low, low + 1)]
        wanted.append(-(low + 1 - target) * near[0] - (target - low) * near[1])
    torch.testing.assert_close(distribution_focal_loss(logits, targets), torch.tensor(wanted))


def test_distribution_is_learnt_up_to_its_mean():
    """The distribution whose loss is least for a target between two distances has the target as its mean."""
    logits = torch.zeros(1, 4, 9, requires_grad=True)
    target = torch.tensor([0.5, 1.25, 4.8, 7.1])
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        distribution_focal_loss(logits[0], target).sum().backward()
        optimizer.step()
    torch.testing.assert_close(Integral(8)(logits.flatten(1))[0], target, rtol=0, atol=0.02)
