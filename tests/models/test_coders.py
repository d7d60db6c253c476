"""Boxes to codes and back, number by number."""

from __future__ import annotations

import math

import pytest
import torch
from plain_boxes import centre_and_size, random_boxes

from sdk.models.boxes import box_centres
from sdk.models.coders import DeltaCoder, DistanceCoder, TBLRCoder
from sdk.models.methods.legacy import LegacyDeltaCoder

PRIORS = random_boxes(30, seed=0)
BOXES = random_boxes(30, seed=1)
MEANS, STDS = (0.1, 0.0, -0.2, 0.3), (0.1, 0.2, 0.3, 0.4)


def deltas_by_hand(prior, box, extra=0.0):
    """The numbers of R-CNN's appendix C, of boxes that are ``extra`` wider than their corners say."""
    (px, py, pw, ph), (x, y, w, h) = centre_and_size(prior), centre_and_size(box)
    pw, ph, w, h = pw + extra, ph + extra, w + extra, h + extra
    deltas = ((x - px) / pw, (y - py) / ph, math.log(w / pw), math.log(h / ph))
    return [(d - m) / s for d, m, s in zip(deltas, MEANS, STDS, strict=True)]


@pytest.mark.parametrize(("coder", "extra"), [(DeltaCoder(MEANS, STDS), 0.0), (LegacyDeltaCoder(MEANS, STDS), 1.0)])
def test_deltas(coder, extra):
    codes = coder.encode(PRIORS, BOXES)
    wanted = [deltas_by_hand(p, b, extra) for p, b in zip(PRIORS.tolist(), BOXES.tolist(), strict=True)]
    torch.testing.assert_close(codes, torch.tensor(wanted), rtol=1e-4, atol=1e-4)
    # The first generation decoded sides as wide as they count, so that boxes come back half a pixel larger all around.
    around = torch.tensor((-0.5, -0.5, 0.5, 0.5)) * extra
    torch.testing.assert_close(coder.decode(PRIORS, codes), BOXES + around, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("coder", "size"), [(DeltaCoder(), 20.0), (LegacyDeltaCoder(), 21.0)])
def test_sizes_are_held(coder, size):
    prior = torch.tensor([[40.0, 40.0, 60.0, 60.0]])
    box = coder.decode(prior, torch.tensor([[0.0, 0.0, 50.0, -50.0]]))
    _, _, width, height = centre_and_size(box[0].tolist())
    assert width == pytest.approx(size * 62.5)
    assert height == pytest.approx(size / 62.5, rel=1e-3)


def test_centres_are_held_in_place_of_shrinking():
    coder = DeltaCoder(center_limit=32)
    prior = torch.tensor([[0.0, 0.0, 100.0, 100.0]])
    x, y, width, height = centre_and_size(coder.decode(prior, torch.tensor([[0.5, -0.1, 9.0, -9.0]]))[0].tolist())
    assert (x, y) == pytest.approx((50 + 32, 50 - 10), abs=1e-2)
    assert width == pytest.approx(6250)
    assert height == pytest.approx(100 * math.exp(-9), rel=1e-2)


@pytest.mark.parametrize(
    ("coder", "last"),
    [(DeltaCoder(), 0.0), (LegacyDeltaCoder(), 1.0), (DistanceCoder(), 0.0), (TBLRCoder(), 0.0)],
    ids=lambda value: type(value).__name__,
)
def test_boxes_are_cut_to_the_image(coder, last):
    """The first generation cut them to the last pixel."""
    priors = PRIORS if not isinstance(coder, DistanceCoder) else box_centres(PRIORS)
    codes = coder.encode(priors, BOXES)
    whole, cut = coder.decode(priors, codes), coder.decode(priors, codes, (60, 80))
    limits = (80 - last, 60 - last) * 2
    wanted = [[min(max(v, 0), limit) for v, limit in zip(box, limits, strict=True)] for box in whole.tolist()]
    torch.testing.assert_close(cut, torch.tensor(wanted))
    assert not torch.equal(whole, cut)


def test_coders_that_do_not_cut():
    codes = DeltaCoder().encode(PRIORS, BOXES)
    assert torch.equal(DeltaCoder(clip=False).decode(PRIORS, codes, (10, 10)), DeltaCoder().decode(PRIORS, codes))


def test_distances():
    points = box_centres(PRIORS)
    codes = DistanceCoder().encode(points, BOXES)
    for (x, y), (x1, y1, x2, y2), code in zip(points.tolist(), BOXES.tolist(), codes.tolist(), strict=True):
        assert code == pytest.approx([x - x1, y - y1, x2 - x, y2 - y], abs=1e-4)
    torch.testing.assert_close(DistanceCoder().decode(points, codes), BOXES)


def test_top_bottom_left_right():
    codes = TBLRCoder(unit=4.0).encode(PRIORS, BOXES)
    for prior, (x1, y1, x2, y2), code in zip(PRIORS.tolist(), BOXES.tolist(), codes.tolist(), strict=True):
        x, y, w, h = centre_and_size(prior)
        assert code == pytest.approx([(y - y1) / h / 4, (y2 - y) / h / 4, (x - x1) / w / 4, (x2 - x) / w / 4], abs=1e-4)
    torch.testing.assert_close(TBLRCoder(unit=4.0).decode(PRIORS, codes), BOXES)


@pytest.mark.parametrize("coder", [DeltaCoder(), LegacyDeltaCoder()])
def test_boxes_of_several_classes(coder):
    """(N, K, 4) codes decode as each class does alone."""
    codes = torch.randn(30, 3, 4, generator=torch.Generator().manual_seed(0))
    got = coder.decode(PRIORS[:, None].expand(-1, 3, 4), codes, (60, 80))
    for label in range(3):
        assert torch.equal(got[:, label], coder.decode(PRIORS, codes[:, label], (60, 80)))
