"""The searched pyramid of NAS-FCOS: its cells, and how they are wired.

Shape letters: B images, C channels, H x W pixels of a level.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from sdk.models.necks.nas_fcos_fpn import NASFCOSFPN, Cell

CHANNELS = 4


def by_hand(cell: Cell, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """A fresh cell: offsets are zero and every tap counts a half; batch statistics are zero and one."""

    def convolved(part, x):
        if not hasattr(part, "conv"):
            return x
        x = F.conv2d(x, part.conv.weight / 2, part.conv.bias, padding=1)
        return (x / math.sqrt(1 + 1e-5)).clamp(min=0)

    a, b = convolved(cell.input1_conv, first), convolved(cell.input2_conv, second)
    height, width = max(a.shape[2], b.shape[2]), max(a.shape[3], b.shape[3])
    a, b = (x.repeat_interleave(height // x.shape[2], 2).repeat_interleave(width // x.shape[3], 3) for x in (a, b))
    both = (torch.cat((a, b), dim=1) / math.sqrt(1 + 1e-5)).clamp(min=0)
    # Side by side are neighbours: the first half of the outputs reads the first map, the second half the second.
    weight = cell.out_conv.conv.weight[:, :, 0, 0]
    return torch.stack(
        [weight[c, 0] * both[:, 2 * c] + weight[c, 1] * both[:, 2 * c + 1] for c in range(CHANNELS)], dim=1
    )


def fresh(cell_or_neck):
    """In test mode, with convolutions large enough to see."""
    for name, parameter in cell_or_neck.named_parameters():
        if name.endswith("conv.weight") or name.endswith("conv.bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return cell_or_neck.eval()


def test_cells():
    torch.manual_seed(0)
    small, large = torch.randn(2, CHANNELS, 3, 4), torch.randn(2, CHANNELS, 6, 8)
    for second in (True, False):
        cell = fresh(Cell(CHANNELS, second))
        with torch.no_grad():
            for pair in ((small, large), (large, small), (large, large)):
                torch.testing.assert_close(cell(*pair), by_hand(cell, *pair))


def test_wiring():
    torch.manual_seed(0)
    neck = fresh(NASFCOSFPN((5, 6, 7, 8), CHANNELS))
    inputs = [torch.randn(1, c, 32 // 2**i, 48 // 2**i) for i, c in enumerate((5, 6, 7, 8))]
    with torch.no_grad():
        p3, p4, p5 = (
            (F.conv2d(x, conv.conv.weight) / math.sqrt(1 + 1e-5)).clamp(min=0)
            for x, conv in zip(inputs[1:], neck.adapt_convs, strict=True)
        )
        cell = neck.fpn
        one, two = cell["c22_1"](p5, p5), cell["c22_2"](p5, p5)
        shared = cell["c32"](one, p5)
        fine = cell["c02"](p3, p5)
        coarse = cell["c42"](two, p5)
        middle = cell["c36"](one, fine)
        finest = cell["c61"](fine, p4)
        wanted = []
        for level, x in zip((finest, middle, coarse), inputs[1:], strict=True):
            total = level + F.interpolate(shared, size=level.shape[2:], mode="bilinear", align_corners=False)
            wanted.append(F.interpolate(total, size=x.shape[2:], mode="bilinear", align_corners=False))
        first, second = (layer.conv for layer in neck.extra_downsamples)
        wanted.append(F.conv2d(wanted[-1], first.weight, first.bias, stride=2, padding=1))
        wanted.append(F.conv2d(wanted[-1].clamp(min=0), second.weight, second.bias, stride=2, padding=1))
        for got, level in zip(neck(inputs), wanted, strict=True):
            torch.testing.assert_close(got, level)
