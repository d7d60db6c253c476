"""Anchors and points, location by location."""

from __future__ import annotations

import math

import pytest
import torch
from plain_boxes import centre_and_size

from sdk.models.methods.legacy import legacy_anchors
from sdk.models.priors import AnchorGrid, anchor_grid, base_anchors, grid_points, octave_scales

CPU = torch.device("cpu")
SCALES, RATIOS = (4.0, 5.0, 8.0), (0.5, 1.0, 2.0)


@pytest.mark.parametrize("ratio_major", [True, False])
def test_anchors(ratio_major):
    sizes, strides = [(2, 3), (1, 2)], (8, 16)
    levels = anchor_grid(strides, scales=SCALES, ratios=RATIOS, ratio_major=ratio_major)(sizes, CPU)
    pairs = [(r, s) for r in RATIOS for s in SCALES] if ratio_major else [(r, s) for s in SCALES for r in RATIOS]
    for level, (height, width), stride in zip(levels, sizes, strides, strict=True):
        wanted = []
        for row in range(height):
            for column in range(width):
                for ratio, scale in pairs:
                    # Height over width is the ratio, and the area is that of a square of the scale.
                    w, h = stride * scale / math.sqrt(ratio), stride * scale * math.sqrt(ratio)
                    x, y = column * stride, row * stride
                    wanted.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
        torch.testing.assert_close(level, torch.tensor(wanted))


def test_sizes_of_their_own():
    grid = anchor_grid((8, 16), scales=(1.0,), ratios=(1.0,), base_sizes=(10, 30))
    assert [base.tolist() for base in grid.bases] == [[[-5.0, -5.0, 5.0, 5.0]], [[-15.0, -15.0, 15.0, 15.0]]]


def test_octaves():
    scales = octave_scales(4, 3)
    assert [b / a for a, b in zip(scales, (*scales[1:], 8.0), strict=True)] == pytest.approx([2 ** (1 / 3)] * 3)


def test_points_of_uneven_strides():
    got = grid_points((2, 3), (7.5, 10.0), CPU, offset=0.5)
    assert got.tolist() == [[7.5 * (column + 0.5), 10.0 * (row + 0.5)] for row in range(2) for column in range(3)]


def test_cells_inside_an_image():
    grid = AnchorGrid((8, (16.0, 32.0)), [base_anchors(8, (1.0, 2.0), (1.0,))] * 2)
    sizes = [(4, 5), (2, 3)]
    for flags, (height, width), (stride_x, stride_y) in zip(
        grid.valid(sizes, (20, 33), CPU), sizes, ((8, 8), (16, 32)), strict=True
    ):
        # A cell counts when it begins inside the image.
        wanted = [
            row * stride_y < 20 and column * stride_x < 33
            for row in range(height)
            for column in range(width)
            for _ in range(2)
        ]
        assert flags.tolist() == wanted


def test_as_many_bases_as_strides():
    with pytest.raises(ValueError, match=r"strides \(2\), found 1"):
        AnchorGrid((8, 16), [base_anchors(8, (1.0,), (1.0,))])


def test_anchors_of_the_first_generation():
    """Sides in whole pixels, the last of which belongs to the anchor, around the middle of the cell's pixels."""
    (level,) = legacy_anchors((16,), (8,))([(1, 2)], CPU)
    for index, box in enumerate(level.tolist()):
        ratio, column = (0.5, 1.0, 2.0)[index % 3], index // 3
        w, h = 128 / math.sqrt(ratio), 128 * math.sqrt(ratio)
        x, y = 7.5 + 16 * column, 7.5
        exact = (x - (w - 1) / 2, y - (h - 1) / 2, x + (w - 1) / 2, y + (h - 1) / 2)
        assert box == [round(value) for value in exact]
        centre_x, _, width, _ = centre_and_size(box)
        assert abs(centre_x - x) <= 0.5
        assert abs(width + 1 - w) <= 1
