"""Gradient densities, example by example."""

from __future__ import annotations

import math

import torch

from sdk.models.methods.ghm import GHMC, GHMR


def harmonized(lengths, bins, momentum, averages):
    """The weight of each example; ``averages`` is brought up to date."""
    index = [min(int(length * bins + 1e-9), bins - 1) for length in lengths]
    filled = sorted(set(index))
    for i in filled:
        averages[i] = momentum * averages[i] + (1 - momentum) * index.count(i)
    return [len(lengths) / averages[i] / len(filled) for i in index]


def test_classification():
    torch.manual_seed(0)
    loss, averages = GHMC(), [0.0] * 30
    for _ in range(3):
        logits, labels = torch.randn(7, 4) * 3, torch.tensor([0, 4, 1, 4, 3, 2, 4])
        valid = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
        scores, targets = [], []
        for row in range(7):
            if valid[row]:
                scores += [1 / (1 + math.exp(-x)) for x in logits[row].tolist()]
                targets += [float(int(labels[row]) == column) for column in range(4)]
        weights = harmonized([abs(p - t) for p, t in zip(scores, targets, strict=True)], 30, 0.75, averages)
        terms = [-w * math.log(p if t else 1 - p) for w, p, t in zip(weights, scores, targets, strict=True)]
        torch.testing.assert_close(
            loss(logits, labels, valid), torch.tensor(sum(terms) / len(terms)), rtol=1e-4, atol=0
        )
        torch.testing.assert_close(loss.acc_sum, torch.tensor(averages))


def test_regression():
    torch.manual_seed(0)
    loss, averages = GHMR(mu=0.02, loss_weight=10.0), [0.0] * 10
    for _ in range(3):
        pred, target = torch.randn(6, 4) * 0.03, torch.zeros(6, 4)
        diffs = pred.flatten().tolist()
        roots = [math.sqrt(d * d + 0.02**2) for d in diffs]
        weights = harmonized([abs(d) / r for d, r in zip(diffs, roots, strict=True)], 10, 0.7, averages)
        wanted = 10 * sum(w * (r - 0.02) for w, r in zip(weights, roots, strict=True)) / len(diffs)
        torch.testing.assert_close(loss(pred, target), torch.tensor(wanted), rtol=1e-4, atol=0)


def test_nothing_valid():
    logits = torch.randn(3, 2, requires_grad=True)
    value = GHMC()(logits, torch.tensor([0, 1, 2]), torch.zeros(3))
    value.backward()
    assert float(value.detach()) == 0
    assert logits.grad is not None
    empty = torch.zeros(0, 4, requires_grad=True)
    assert float(GHMR()(empty, torch.zeros(0, 4)).detach()) == 0
