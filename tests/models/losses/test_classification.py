"""Losses on class scores, element by element.

Shape letters: N elements, K classes.
"""

from __future__ import annotations

import math

import pytest
import torch

from sdk.models.losses import BinaryCrossEntropy, CrossEntropy, FocalLoss, soft_binary_cross_entropy

LABELS = [0, 3, 2, 3, 1, 1]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def cross_entropy(row, label):
    return math.log(sum(math.exp(x) for x in row)) - row[label]


def binary(row, label):
    """Every class alone; background, which is 3, is none of them."""
    return -sum(math.log(sigmoid(x) if k == label else 1 - sigmoid(x)) for k, x in enumerate(row))


def focal(row, label):
    total = 0.0
    for k, x in enumerate(row):
        p_t, alpha_t = (sigmoid(x), 0.3) if k == label else (1 - sigmoid(x), 0.7)
        total -= alpha_t * (1 - p_t) ** 1.5 * math.log(p_t)
    return total


CASES = {
    "softmax": (CrossEntropy(weight=0.5), lambda row, label: 0.5 * cross_entropy(row, label), 4),
    "sigmoid": (BinaryCrossEntropy(weight=0.5), lambda row, label: 0.5 * binary(row, label), 3),
    "focal": (FocalLoss(gamma=1.5, alpha=0.3, weight=0.5), lambda row, label: 0.5 * focal(row, label), 3),
}


@pytest.mark.parametrize("kind", CASES)
def test_formula(kind):
    loss, formula, columns = CASES[kind]
    logits = 2 * torch.randn(6, columns, generator=torch.Generator().manual_seed(0))
    wanted = [formula(row, label) for row, label in zip(logits.tolist(), LABELS, strict=True)]
    assert float(loss(logits, torch.tensor(LABELS))) == pytest.approx(sum(wanted), rel=1e-4)
    weight = [1.0, 0.0, 0.5, 2.0, 1.0, 0.0]
    got = loss(logits, torch.tensor(LABELS), torch.tensor(weight), 3.0)
    assert float(got) == pytest.approx(sum(w * v for w, v in zip(weight, wanted, strict=True)) / 3, rel=1e-4)


@pytest.mark.parametrize("kind", CASES)
def test_gradient(kind):
    loss, _, columns = CASES[kind]
    logits = torch.randn(6, columns, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss(x, torch.tensor(LABELS)), (logits,))


@pytest.mark.parametrize("kind", CASES)
def test_nothing_to_classify(kind):
    """The normalizer of an empty batch may be zero."""
    loss, _, columns = CASES[kind]
    logits = torch.zeros(0, columns, requires_grad=True)
    value = loss(logits, torch.zeros(0, dtype=torch.int64), None, 0.0)
    value.backward()
    assert float(value.detach()) == 0


def test_soft_targets():
    torch.manual_seed(0)
    logits, targets, weight = torch.randn(4, 5), torch.rand(4, 5), torch.rand(4, 5)
    total = 0.0
    for x, t, w in zip(*(values.flatten().tolist() for values in (logits, targets, weight)), strict=True):
        total -= w * (t * math.log(sigmoid(x)) + (1 - t) * math.log(1 - sigmoid(x)))
    assert float(soft_binary_cross_entropy(logits, targets, weight, 2.0)) == pytest.approx(total / 2, rel=1e-4)
