"""SSD: default boxes by the paper's formulas, and hard negatives one by one.

Shape letters: B images, P anchors, C channels.
"""

from __future__ import annotations

import math

import pytest
import torch

from sdk.models.dense.anchor_targets import AnchorTargets
from sdk.models.methods.ssd import SSD300, SSD512, Layout, hard_negative_loss, ssd_anchors
from sdk.models.necks.ssd_neck import L2Norm, SSDNeck

# Section 3.1 and 3.4: scale of the first level's default boxes, then the least and the largest of the others, percent.
SCALES = {300: (7, 15, 90), 512: (4, 10, 90)}
# Sides of the levels (figure 2; section 3.4), and which of them have no default boxes of ratio 3.
SIDES = {300: (38, 19, 10, 5, 3, 1), 512: (64, 32, 16, 8, 4, 2, 1)}
FOUR_BOXES = {300: (0, 4, 5), 512: (0, 5, 6)}
BOXES = {300: 8732, 512: 24564}
"""How many there are in all (table 7)."""


def shapes_by_hand(size: int) -> list[list[tuple[float, float]]]:
    """Width and height of the default boxes of each level (equation 4 and below), in whole pixels and percent."""
    first, low, high = SCALES[size]
    levels = len(SIDES[size])
    step = math.floor((high - low) / (levels - 2))
    scales = [first] + [low + step * level for level in range(levels)]
    found = []
    for level in range(levels):
        scale, following = (math.floor(size * scales[level + extra] / 100) for extra in (0, 1))
        shapes = [(scale, scale), (math.sqrt(scale * following),) * 2]
        for ratio in (2, 0.5) if level in FOUR_BOXES[size] else (2, 0.5, 3, 1 / 3):
            shapes.append((scale * math.sqrt(ratio), scale / math.sqrt(ratio)))
        found.append(shapes)
    return found


@pytest.mark.parametrize("layout", [SSD300, SSD512], ids=["300", "512"])
def test_default_boxes(layout: Layout):
    size = layout.input_size
    sides = [(side, side) for side in SIDES[size]]
    levels = ssd_anchors(layout)(sides, torch.device("cpu"))
    assert sum(len(level) for level in levels) == BOXES[size]
    for level, (side, _), stride, shapes in zip(levels, sides, layout.strides, shapes_by_hand(size), strict=True):
        boxes = level.reshape(side, side, -1, 4)
        # All default boxes of a cell lie around its centre.
        last = torch.tensor([(side - 0.5) * stride, 0.5 * stride])
        torch.testing.assert_close((boxes[0, -1, :, :2] + boxes[0, -1, :, 2:]) / 2, last.expand(len(shapes), 2))
        got = [(float(w), float(h)) for w, h in boxes[0, -1, :, 2:] - boxes[0, -1, :, :2]]
        assert sorted(got) == [pytest.approx(shape, rel=1e-4) for shape in sorted(shapes)]


@pytest.mark.parametrize("layout", [SSD300, SSD512], ids=["300", "512"])
def test_levels_have_the_sides_of_the_paper(layout: Layout):
    sides = SIDES[layout.input_size]
    with torch.device("meta"):
        levels = SSDNeck((512, 1024), layout.layers)([torch.zeros(1, c, s, s) for c, s in zip((512, 1024), sides)])
    assert [level.shape[2] for level in levels] == list(sides)


@pytest.mark.parametrize("keep_all", [False, True])
def test_hard_negatives(keep_all):
    torch.manual_seed(0)
    losses = torch.rand(4, 20, requires_grad=True)
    positive, weights = torch.zeros(4, 20, dtype=torch.bool), torch.ones(4, 20)
    positive[0, [3, 7]] = True
    positive[1, :12] = True
    positive[2, 5] = True
    weights[0, 10:15] = 0
    weights[2, [0, 1, 2, 3, 4, 6, 7, 8, *range(9, 18)]] = 0
    nothing = torch.zeros(4, 20)
    targets = AnchorTargets(nothing, weights, nothing, positive, nothing, 15, 65)
    total = 0.0
    for image, own in enumerate(losses.tolist()):
        good = [loss for loss, flag in zip(own, positive[image], strict=True) if flag]
        bad = [own[i] for i in range(20) if not positive[image, i] and weights[image, i]]
        count = len(bad) if keep_all and not good else 3 * len(good)
        total += sum(good) + sum(sorted(bad, reverse=True)[:count])
    got = hard_negative_loss(losses, targets, 3, keep_all_if_empty=keep_all)
    torch.testing.assert_close(got, torch.tensor(total))
    got.backward()
    # The last image has no positives, and anchors without weight never count.
    assert bool((losses.grad[3] == float(keep_all)).all())
    assert float(losses.grad[weights == 0].abs().sum()) == 0


def test_length_of_features():
    norm = L2Norm(3, scale=20.0)
    x = torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]]).t().reshape(1, 3, 1, 2).requires_grad_(True)
    y = norm(x)
    torch.testing.assert_close(y.flatten(2)[0].t(), torch.tensor([[12.0, 0.0, 16.0], [0.0, 0.0, 0.0]]))
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
