"""Feature pyramid grids, node by node.

Shape letters: B images, C channels; p pathways, l levels.
"""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
import torch.nn.functional as F

from sdk.models.necks.fpg import FPG

LEVELS = 5


def act_conv(part, x, stride=1):
    """ReLU and convolution; batch statistics of a fresh network are zero and one."""
    size = part.conv.weight.shape[2]
    return F.conv2d(x.clamp(min=0), part.conv.weight, stride=stride, padding=size // 2) / math.sqrt(1 + 1e-5)


@pytest.mark.parametrize(("start", "extra_convs"), [(0, False), (1, True)])
def test_grid(start, extra_convs):
    torch.manual_seed(0)
    neck = FPG((4, 5, 6, 7), 3, start=start, extra_convs=extra_convs).eval()
    sides = [(64 // 2**i, 96 // 2**i) for i in range(4)]
    inputs = [torch.randn(1, c, *side) for c, side in zip((4, 5, 6, 7), sides, strict=True)]

    @cache
    def node(pathway, level):
        """The map of a level on a pathway, the first of which is the backbone's."""
        if pathway == 0:
            if level < 4 - start:
                conv = neck.lateral_convs[level]
                return F.conv2d(inputs[level + start], conv.weight, conv.bias)
            finer, layer = node(0, level - 1), neck.extra_downsamples[level - 4 + start]
            return F.conv2d(finer, layer.weight, layer.bias, 2, 1) if extra_convs else finer[:, :, ::2, ::2]
        # The grid is a triangle below: the coarsest level begins at once, every finer one a pathway later.
        if pathway <= LEVELS - 1 - level:
            return node(pathway - 1, level)
        parts = neck.fpn_transitions[pathway - 1][level]
        total = act_conv(parts["across_lateral"], node(pathway - 1, level))
        total = total + act_conv(parts["across_skip"], node(0, level))
        if level > 0:
            total = total + act_conv(parts["same_up"], node(pathway, level - 1), stride=2)
        if level < LEVELS - 1:
            coarser = node(pathway - 1, level + 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
            total = total + act_conv(parts["across_down"].conv, coarser)
        return total

    with torch.no_grad():
        for level, got in enumerate(neck(inputs)):
            conv = neck.output_transition[level].conv_out.conv
            wanted = F.conv2d(node(9, level).clamp(min=0), conv.weight, conv.bias, padding=1)
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
