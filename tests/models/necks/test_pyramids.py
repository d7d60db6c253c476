"""Pyramids that change FPN, against their definitions.

Shape letters: B images, C channels, H x W pixels of a level.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sdk.models.layers import BN
from sdk.models.necks.bfp import BFP
from sdk.models.necks.fpn import FPN
from sdk.models.necks.hrfpn import HRFPN
from sdk.models.necks.pafpn import PAFPN
from sdk.models.necks.rfp import ASPP, RFP

CHANNELS = (4, 6, 8, 10)


def maps(batch=2, height=32, width=48):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, c, height // 2**i, width // 2**i, generator=generator) for i, c in enumerate(CHANNELS)]


def conv(layer, x, stride=1):
    weight = layer.conv.weight
    return F.conv2d(x, weight, layer.conv.bias, stride=stride, padding=weight.shape[2] // 2)


def twice(x):
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def top_down(neck, inputs):
    """Laterals, each with the sum of all coarser ones, finest first."""
    inner = [conv(neck.lateral_convs[-1], inputs[-1])]
    for x, lateral in zip(inputs[-2::-1], list(neck.lateral_convs)[-2::-1], strict=True):
        inner.insert(0, conv(lateral, x) + twice(inner[0]))
    return inner


@pytest.mark.parametrize("extra", ["pool", "input", "lateral", "output"])
@pytest.mark.parametrize("relu", [False, True])
def test_feature_pyramid(extra, relu):
    torch.manual_seed(0)
    neck, inputs = FPN(CHANNELS, 5, num_outs=5, start=1, extra=extra, relu_before_extra=relu), maps()
    inner = top_down(neck, inputs[1:])
    wanted = [conv(layer, x) for layer, x in zip(neck.fpn_convs, inner, strict=False)]
    if extra == "pool":
        wanted += [wanted[-1][:, :, ::2, ::2], wanted[-1][:, :, ::4, ::4]]
    else:
        source = {"input": inputs[-1], "lateral": inner[-1], "output": wanted[-1]}[extra]
        wanted.append(conv(neck.fpn_convs[3], source, 2))
        wanted.append(conv(neck.fpn_convs[4], wanted[-1].clamp(min=0) if relu else wanted[-1], 2))
    for got, level in zip(neck(inputs), wanted, strict=True):
        torch.testing.assert_close(got, level)


def test_sizes_that_do_not_halve():
    """Coarser maps are stretched to the size of the finer ones."""
    neck = FPN((4, 6), 5, num_outs=2)
    levels = neck([torch.randn(1, 4, 7, 9), torch.randn(1, 6, 4, 5)])
    assert [tuple(level.shape[2:]) for level in levels] == [(7, 9), (4, 5)]


def test_normalization_of_laterals_is_a_choice():
    assert FPN(CHANNELS, norm=BN).lateral_convs[0].norm_name == "bn"
    neck = FPN(CHANNELS, norm=BN, lateral_norm=False)
    assert (neck.lateral_convs[0].norm_name, neck.fpn_convs[0].norm_name) == (None, "bn")


def test_unknown_source_of_extra_levels():
    with pytest.raises(ValueError, match="found 'backbone'"):
        FPN(CHANNELS, extra="backbone")


def test_path_aggregation():
    """Figure 1 (b): every level also gets the finer one, made smaller."""
    torch.manual_seed(0)
    neck, inputs = PAFPN(CHANNELS, 5), maps()
    inner = [conv(layer, x) for layer, x in zip(neck.fpn_convs, top_down(neck, inputs), strict=True)]
    wanted, below = [inner[0]], inner[0]
    for down, last, x in zip(neck.downsample_convs, neck.pafpn_convs, inner[1:], strict=True):
        below = x + conv(down, below, 2)
        wanted.append(conv(last, below))
    wanted.append(wanted[-1][:, :, ::2, ::2])
    for got, level in zip(neck(inputs), wanted, strict=True):
        torch.testing.assert_close(got, level)


def non_local(block, x):
    """Every pixel, pixel by pixel: what all pixels say, by the softmax of their likeness."""
    out = x.clone()
    query, key, value = (conv(part, x).flatten(2) for part in (block.theta, block.phi, block.g))
    width = x.shape[3]
    for image in range(len(x)):
        for place in range(query.shape[2]):
            likeness = torch.stack([query[image, :, place] @ key[image, :, other] for other in range(key.shape[2])])
            weights = likeness.exp() / likeness.exp().sum()
            mixed = sum(w * value[image, :, other] for other, w in enumerate(weights))
            added = block.conv_out.conv.weight[:, :, 0, 0] @ mixed + block.conv_out.conv.bias
            out[image, :, place // width, place % width] += added
    return out


def test_balanced_pyramid():
    torch.manual_seed(0)
    neck = BFP(3, level=1)
    fine, middle, coarse = torch.randn(1, 3, 8, 12), torch.randn(1, 3, 4, 6), torch.randn(1, 3, 2, 3)
    with torch.no_grad():
        mean = (F.max_pool2d(fine, 2) + middle + twice(coarse)) / 3
        refined = non_local(neck.refine, mean)
        got = neck([fine, middle, coarse])
        for level, wanted in zip(
            got, (fine + twice(refined), middle + refined, coarse + F.max_pool2d(refined, 2)), strict=True
        ):
            torch.testing.assert_close(level, wanted)


@pytest.mark.parametrize("stride", [1, 2])
def test_high_resolution_pyramid(stride):
    torch.manual_seed(0)
    neck, inputs = HRFPN(CHANNELS, 5, num_outs=4, stride=stride), maps()
    stretched = [F.interpolate(x, size=(32, 48), mode="bilinear", align_corners=False) for x in inputs]
    finest = conv(neck.reduction_conv, torch.cat(stretched, dim=1))
    for index, got in enumerate(neck(inputs)):
        pooled = finest.unflatten(2, (-1, 2**index)).unflatten(4, (-1, 2**index)).mean(dim=(3, 5))
        torch.testing.assert_close(got, conv(neck.fpn_convs[index], pooled, stride))


def test_atrous_pooling():
    torch.manual_seed(0)
    pool, x = ASPP(6, 2), torch.randn(1, 6, 9, 11)
    got = pool(x)
    for index, dilation in enumerate((1, 3, 6)):
        layer = pool.aspp[index]
        padding = 0 if dilation == 1 else dilation
        wanted = F.conv2d(x, layer.weight, layer.bias, padding=padding, dilation=dilation).clamp(min=0)
        torch.testing.assert_close(got[:, 2 * index : 2 * index + 2], wanted)
    average = pool.aspp[3].weight[:, :, 0, 0] @ x[0].flatten(1).mean(dim=1) + pool.aspp[3].bias
    torch.testing.assert_close(got[0, 6:], average.clamp(min=0)[:, None, None].expand(2, 9, 11))


class SecondBackbone(nn.Module):
    """Makes its maps from what is fed back alone."""

    def __init__(self, feedback_channels):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(feedback_channels, c, 1) for c in CHANNELS)

    def forward(self, image, feedback):
        return [layer(x) for layer, x in zip(self.convs, feedback, strict=True)]


def test_recursive_pyramid():
    """The pyramid of what the second backbone makes of the first pyramid, mixed with it pixel by pixel."""
    torch.manual_seed(0)
    neck, inputs = RFP(CHANNELS, 8, backbone=SecondBackbone), maps()
    nn.init.normal_(neck.rfp_weight.weight)
    image = torch.randn(2, 3, 128, 192)

    def pyramid(levels):
        outs = [conv(layer, x) for layer, x in zip(neck.fpn_convs, top_down(neck, levels), strict=True)]
        return [*outs, outs[-1][:, :, ::2, ::2]]

    with torch.no_grad():
        first = pyramid(inputs)
        fed_back = [first[0], *(neck.rfp_aspp(level) for level in first[1:4])]
        second = pyramid(neck.rfp_modules[0](image, fed_back))
        for got, old, new in zip(neck([image, *inputs]), first, second, strict=True):
            share = F.conv2d(new, neck.rfp_weight.weight, neck.rfp_weight.bias).sigmoid()
            torch.testing.assert_close(got, old + share * (new - old), rtol=1e-4, atol=1e-4)
