"""Buckets of a box's sides, worked out one by one."""

from __future__ import annotations

import pytest
import torch

from sdk.models.methods.sabl import BUCKETS, BucketCoder


def by_hand(prior, box, scale):
    """For each side: places of the buckets, their size, the label, its weights, the offsets and theirs."""
    x1, y1, x2, y2 = prior
    cx, cy, w, h = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) * scale, (y2 - y1) * scale
    result = []
    for end, sign, length, side in (
        (cx - w / 2, 1, w, box[0]),
        (cx + w / 2, -1, w, box[2]),
        (cy - h / 2, 1, h, box[1]),
        (cy + h / 2, -1, h, box[3]),
    ):
        size = length / 14
        places = [end + sign * (i + 0.5) * size for i in range(7)]
        offsets = [(place - side) / size for place in places]
        order = sorted(range(7), key=lambda i: abs(offsets[i]))
        label = [float(i == order[0]) for i in range(7)]
        label_weight = [float(not (abs(offsets[i]) < 1 and i != order[0])) for i in range(7)]
        weight = [float(i == order[0] or (i == order[1] and abs(offsets[i]) < 1)) for i in range(7)]
        result.append((label, label_weight, offsets, weight))
    return [torch.tensor(part) for part in zip(*result, strict=True)]


@pytest.mark.parametrize("scale", [1.3, 3.0])
def test_targets(scale):
    torch.manual_seed(0)
    coder = BucketCoder(scale)
    low = torch.rand(20, 2) * 100
    priors = torch.cat((low, low + 20 + torch.rand(20, 2) * 80), dim=1)
    boxes = priors + torch.randn(20, 4) * 6
    got = coder.encode(priors, boxes)
    for index in range(20):
        for mine, wanted in zip(got, by_hand(priors[index].tolist(), boxes[index].tolist(), scale), strict=True):
            torch.testing.assert_close(mine[index], wanted, rtol=1e-3, atol=1e-3)


def test_decoding_inverts_encoding():
    torch.manual_seed(0)
    coder = BucketCoder(1.7)
    priors = torch.tensor([[10.0, 20.0, 110.0, 90.0], [0.0, 0.0, 30.0, 60.0]])
    boxes = priors + torch.randn(2, 4) * 4
    wanted = coder.encode(priors, boxes)
    codes = torch.cat(((wanted.labels * 20).flatten(1), wanted.offsets.flatten(1)), dim=1)
    torch.testing.assert_close(coder.decode(priors, codes), boxes, rtol=1e-4, atol=1e-3)
    # All probability lies in one bucket of each side.
    torch.testing.assert_close(coder.confidences(codes), torch.ones(2), rtol=1e-4, atol=1e-4)


def test_confidence_counts_a_neighbour():
    probability = torch.full((4, BUCKETS), 0.02)
    probability[:, 2] = 0.5
    probability[:2, 3] = 0.4
    probability[2:, 5] = 0.4
    codes = torch.cat((probability.log().flatten(), torch.zeros(4 * BUCKETS)))[None]
    torch.testing.assert_close(BucketCoder(1.0).confidences(codes), torch.tensor([(0.9 + 0.5) / 2]))


def test_boxes_end_at_the_last_pixel():
    codes = torch.zeros(1, 8 * BUCKETS)
    got = BucketCoder(3.0).decode(torch.tensor([[0.0, 0.0, 50.0, 40.0]]), codes, (40, 50))
    assert got.tolist() == [[0.0, 0.0, 49.0, 39.0]]
