"""Level selection and loss of FSAF, object by object."""

from __future__ import annotations

import math

import torch

from sdk.models.coders import TBLRCoder
from sdk.models.methods.fsaf import FSAFHead, best_levels
from sdk.models.structures import ImageBatch, Targets


def test_coder_round_trip():
    priors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [16.0, 16.0, 48.0, 32.0]])
    boxes = torch.tensor([[-3.0, 1.0, 20.0, 30.0], [10.0, 2.0, 50.0, 44.0]])
    coder = TBLRCoder()
    codes = coder.encode(priors, boxes)
    torch.testing.assert_close(codes[0], torch.tensor([3.0, 26.0, 7.0, 16.0]) / 32)
    torch.testing.assert_close(coder.decode(priors, codes), boxes)
    torch.testing.assert_close(coder.decode(priors, codes, (40, 45))[:, 2:], torch.tensor([[20.0, 30.0], [45.0, 40.0]]))


def test_best_levels():
    losses, objects = torch.tensor([5.0, 1.0, 2.0, 0.5, 4.0]), torch.tensor([0, 0, 0, 1, 1])
    levels = torch.tensor([0, 0, 2, 1, 2])
    assert best_levels(losses, objects, levels, 2, 3).tolist() == [2, 1]


def test_only_the_best_level_is_trained():
    """One object, predicted exactly on its third level: the loss is that of this level's positives alone."""
    head = FSAFHead(num_classes=2)
    sizes = [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    box = torch.tensor([30.0, 30.0, 100.0, 100.0])
    logits, codes = [], []
    for (height, width), anchors in zip(sizes, head.anchors(sizes, torch.device("cpu")), strict=True):
        logits.append(torch.full((1, 2, height, width), -4.0))
        exact = head.coder.encode(anchors, box.expand(len(anchors), 4)).clamp(min=0)
        code = exact if height == 4 else torch.full_like(exact, 0.01)
        codes.append(code.view(1, height, width, 4).permute(0, 3, 1, 2))
    images = ImageBatch(torch.zeros(1, 3, 128, 128), [(128, 128)])
    got = head.loss((logits, codes), images, [Targets(box[None], torch.tensor([1]))])
    assert float(got["loss_bbox"]) < 1e-4
    p = 1 / (1 + math.exp(4))
    per_negative, positive = 0.75 * p**2 * -math.log(1 - p), 0.25 * (1 - p) ** 2 * -math.log(p)
    anchors = torch.cat(head.anchors(sizes, torch.device("cpu")))
    assignment, shadow = head.center_assigner(anchors, box[None], torch.tensor([1]))
    matched = assignment.positive.split([256, 64, 16, 4, 1])
    # Class 1 of the shadow and of positives on other levels is not trained; class 0 is everywhere.
    untrained = int(shadow.sum()) + int(assignment.positive.sum())
    wanted = per_negative * (2 * len(anchors) - untrained) + positive * int(matched[2].sum())
    torch.testing.assert_close(got["loss_cls"], torch.tensor(wanted / int(matched[2].sum())), rtol=1e-4, atol=0)


def test_boxes_without_area_have_a_finite_loss():
    head = FSAFHead(num_classes=2)
    sizes = [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]
    outputs = (
        [torch.zeros(1, 2, *size, requires_grad=True) for size in sizes],
        [torch.zeros(1, 4, *size, requires_grad=True) for size in sizes],
    )
    images = ImageBatch(torch.zeros(1, 3, 64, 64), [(64, 64)])
    losses = head.loss(outputs, images, [Targets(torch.tensor([[8.0, 8.0, 40.0, 56.0]]), torch.tensor([0]))])
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert total.isfinite()
    assert all(level.grad is not None and level.grad.isfinite().all() for kind in outputs for level in kind)
