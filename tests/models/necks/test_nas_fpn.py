"""The merging cells of NAS-FPN, and how they are wired.

Shape letters: B images, C channels, H x W pixels of a level.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sdk.models.necks.nas_fpn import NASFPN, MergingCell, resized


def resized_by_hand(x, height, width):
    """An (H, W) map made larger by its nearest pixels, or smaller by the maxima of equal windows, zero padded around,
    the odd row and column after it."""
    rows, columns = x.shape
    if (rows, columns) == (height, width):
        return x
    out = torch.zeros(height, width)
    if rows < height or columns < width:
        for i in range(height):
            for j in range(width):
                out[i, j] = x[i * rows // height, j * columns // width]
        return out
    tall, wide = math.ceil(rows / height), math.ceil(columns / width)
    above, left = (tall * height - rows) // 2, (wide * width - columns) // 2
    for i in range(height):
        for j in range(width):
            window = [
                float(x[r, c]) if 0 <= r < rows and 0 <= c < columns else 0.0
                for r in range(i * tall - above, (i + 1) * tall - above)
                for c in range(j * wide - left, (j + 1) * wide - left)
            ]
            out[i, j] = max(window)
    return out


@pytest.mark.parametrize("size", [(6, 8), (12, 16), (7, 9), (3, 4), (2, 3), (1, 5), (4, 8)])
def test_resizing(size):
    # Values below zero show the padding.
    x = torch.randn(1, 1, 6, 8, generator=torch.Generator().manual_seed(0)) - 1
    torch.testing.assert_close(resized(x, size)[0, 0], resized_by_hand(x[0, 0], *size), rtol=0, atol=0)


def small(x):
    """What a cell of a fresh network makes of a merged map: batch statistics are zero and one."""
    return x / math.sqrt(1 + 1e-5)


@pytest.mark.parametrize("convolved", [True, False])
@pytest.mark.parametrize("operation", ["sum", "pool"])
def test_merging(operation, convolved):
    torch.manual_seed(0)
    cell = MergingCell(3, operation, convolved).eval()
    first, second = torch.randn(2, 3, 4, 6), torch.randn(2, 3, 8, 12)
    a = torch.stack([torch.stack([resized_by_hand(m, 8, 12) for m in image]) for image in first])
    if operation == "pool":
        # The first map counts, channel by channel, as much as the second is high on average.
        for image in range(2):
            for channel in range(3):
                a[image, channel] *= 1 / (1 + math.exp(-float(second[image, channel].sum()) / 96))
    merged = a + second
    if convolved:
        merged = small(F.conv2d(merged.clamp(min=0), cell.out_conv.conv.weight, cell.out_conv.conv.bias, padding=1))
    torch.testing.assert_close(cell(first, second, (8, 12)), merged)


def test_wiring():
    """Figure 6: the cells in the order of their names, each reading the newest maps but for p4 half-way."""
    torch.manual_seed(0)
    neck = NASFPN((4, 6, 8, 10), 5, stages=2).eval()
    inputs = [torch.randn(1, c, 32 // 2**i, 48 // 2**i) for i, c in enumerate((4, 6, 8, 10))]
    with torch.no_grad():
        p3, p4, p5 = (
            small(F.conv2d(x, lateral.conv.weight)) for x, lateral in zip(inputs[1:], neck.lateral_convs, strict=True)
        )
        p6 = F.max_pool2d(small(F.conv2d(p5, neck.extra_downsamples[0][0].conv.weight)), 2)
        p7 = F.max_pool2d(small(F.conv2d(p6, neck.extra_downsamples[1][0].conv.weight)), 2)
        s3, s4, s5, s6, s7 = ((16 // 2**i, 24 // 2**i) for i in range(5))
        for cell in neck.fpn_stages:
            middle = cell["sum_44_4"](cell["gp_64_4"](p6, p4, s4), p4, s4)
            p3 = cell["sum_43_3"](middle, p3, s3)
            p4 = cell["sum_34_4"](p3, middle, s4)
            p5 = cell["sum_55_5"](p5, cell["gp_43_5"](p4, p3, s5), s5)
            p7 = cell["sum_77_7"](p7, cell["gp_54_7"](p5, middle, s7), s7)
            p6 = cell["gp_75_6"](p7, p5, s6)
        for got, wanted in zip(neck(inputs), (p3, p4, p5, p6, p7), strict=True):
            torch.testing.assert_close(got, wanted)
