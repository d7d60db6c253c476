"""Convolutions of all kinds, and what follows them, against plain arithmetic.

Shape letters: B images, C channels, H x W pixels, k kernel size, G offset groups.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sdk.models.layers import BN, GN, ConvModule
from sdk.models.layers.carafe import CARAFE
from sdk.models.layers.deform import DeformConv2d, FeatureAdaption, ModulatedDeformConv2d
from sdk.models.layers.init import bias_for_prior, init_kaiming, init_normal, init_xavier
from sdk.models.layers.norm import FROZEN_BN, Norm
from sdk.models.layers.scale import Scale
from sdk.models.layers.weight_standardization import WSConv2d


def test_standardized_weights():
    torch.manual_seed(0)
    layer, x = WSConv2d(3, 5, 3, stride=2, padding=1), torch.randn(2, 3, 7, 8)
    weight = layer.weight.detach().clone()
    for channel in weight:
        values = channel.flatten().tolist()
        mean = sum(values) / len(values)
        spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
        channel.copy_((channel - mean) / (spread + 1e-5))
    torch.testing.assert_close(layer(x), F.conv2d(x, weight, layer.bias, stride=2, padding=1))


@pytest.mark.parametrize("norm", [None, BN, GN, Norm("gn", groups=2), FROZEN_BN], ids=str)
def test_convolution_norm_activation(norm):
    torch.manual_seed(0)
    layer, x = ConvModule(3, 64, 3, padding=1, norm=norm, activation=nn.ReLU()), torch.randn(2, 3, 5, 6)
    assert (layer.conv.bias is None) == (norm is not None)
    wanted = F.conv2d(x, layer.conv.weight, layer.conv.bias, padding=1)
    if norm is not None:
        groups = wanted.unflatten(1, (norm.groups, -1)) if norm.kind == "gn" else wanted[:, :, None]
        over = (2, 3, 4) if norm.kind == "gn" else (0, 2, 3, 4)
        centred = groups - groups.mean(dim=over, keepdim=True)
        wanted = (centred / ((centred**2).mean(dim=over, keepdim=True) + 1e-5).sqrt()).flatten(1, 2)
        assert all(p.requires_grad == norm.trainable for p in layer.get_submodule(norm.kind).parameters())
    torch.testing.assert_close(layer(x), wanted.clamp(min=0), rtol=1e-4, atol=1e-4)


def test_unknown_norm():
    with pytest.raises(ValueError, match="found 'layer'"):
        Norm("layer")(8)


def read(plane, y, x):
    """An (H, W) plane between its pixels, which lie at whole numbers; zero outside."""
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]:
                total += (1 - abs(y - row)) * (1 - abs(x - column)) * float(plane[row, column])
    return total


def deformed_by_hand(x, weight, offset, mask, groups):
    """(C', H, W) of a 3 x 3 convolution of (C, H, W); offset: (G, 9, 2, H, W), y then x; mask: (G, 9, H, W)."""
    out = torch.zeros(len(weight), *x.shape[1:])
    share = len(x) // groups
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            for channel in range(len(x)):
                group = channel // share
                for tap in range(9):
                    dy, dx = offset[group, tap, :, row, column].tolist()
                    value = read(x[channel], row + tap // 3 - 1 + dy, column + tap % 3 - 1 + dx)
                    value *= float(mask[group, tap, row, column])
                    out[:, row, column] += weight[:, channel, tap // 3, tap % 3] * value
    return out


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", [DeformConv2d, ModulatedDeformConv2d])
def test_deformable_convolution(kind, groups):
    torch.manual_seed(0)
    layer, x = kind(4, 3, 3, padding=1, offset_groups=groups), torch.randn(1, 4, 4, 5)
    plain = F.conv2d(x, layer.weight, padding=1)
    # A new layer is a plain one, whose taps count a half where they are weighed.
    torch.testing.assert_close(layer(x), plain / (2 if kind is ModulatedDeformConv2d else 1))
    torch.nn.init.normal_(layer.conv_offset.weight, std=0.3)
    torch.nn.init.normal_(layer.conv_offset.bias)
    with torch.no_grad():
        raw = layer.conv_offset(x)[0]
        offset = raw[: 18 * groups].reshape(groups, 9, 2, 4, 5)
        mask = torch.ones(groups, 9, 4, 5)
        if kind is ModulatedDeformConv2d:
            mask = raw[18 * groups :].reshape(groups, 9, 4, 5).sigmoid()
        wanted = deformed_by_hand(x[0], layer.weight, offset, mask, groups)
        torch.testing.assert_close(layer(x)[0], wanted, rtol=1e-4, atol=1e-4)


def test_features_are_adapted_to_shapes():
    torch.manual_seed(0)
    layer, x, shapes = FeatureAdaption(2, 4, offset_groups=2), torch.randn(1, 4, 3, 4), 3 * torch.randn(1, 2, 3, 4)
    with torch.no_grad():
        raw = torch.einsum("oc,chw->ohw", layer.conv_offset.weight[:, :, 0, 0], shapes[0])
        offset = raw.reshape(2, 9, 2, 3, 4)
        wanted = deformed_by_hand(x[0], layer.conv_adaption.weight, offset, torch.ones(2, 9, 3, 4), 2)
        torch.testing.assert_close(layer(x, shapes)[0], wanted.clamp(min=0), rtol=1e-4, atol=1e-4)


def test_content_aware_upsampling():
    """Each output pixel is a mean of the 5 x 5 pixels around its source, with weights of its own."""
    torch.manual_seed(0)
    layer, x = CARAFE(3, compressed=4), torch.randn(1, 3, 3, 4)
    torch.nn.init.normal_(layer.content_encoder.weight)
    with torch.no_grad():
        # (25 taps, 2 x 2 places within the source pixel) of each pixel.
        kernels = layer.content_encoder(layer.channel_compressor(x))[0].unflatten(0, (25, 2, 2))
        got = layer(x)[0]
        for row in range(6):
            for column in range(8):
                weights = kernels[:, row % 2, column % 2, row // 2, column // 2].exp()
                wanted = torch.zeros(3)
                for tap in range(25):
                    y, z = row // 2 + tap // 5 - 2, column // 2 + tap % 5 - 2
                    if 0 <= y < 3 and 0 <= z < 4:
                        wanted += weights[tap] / weights.sum() * x[0, :, y, z]
                torch.testing.assert_close(got[:, row, column], wanted)


def test_scale():
    layer = Scale(2.5)
    layer(torch.tensor([1.0, 3.0])).sum().backward()
    assert layer(torch.ones(2)).tolist() == [2.5, 2.5]
    assert float(layer.scale.grad) == 4


def test_initial_values():
    torch.manual_seed(0)
    for fill, spread in (
        (init_normal, 0.01),
        # Xavier: variance 2 / (fan in + fan out). Kaiming: 2 / fan out.
        (init_xavier, math.sqrt(2 / (64 * 9 + 32 * 9))),
        (init_kaiming, math.sqrt(2 / (32 * 9))),
    ):
        root = nn.Sequential(nn.Conv2d(64, 32, 3), DeformConv2d(64, 32, 3, bias=True))
        torch.nn.init.ones_(root[0].bias)
        torch.nn.init.ones_(root[1].bias)
        fill(root)
        for layer in root:
            assert float(layer.weight.detach().std()) == pytest.approx(spread, rel=0.05)
            assert float(layer.bias.detach().abs().sum()) == 0
        # Offsets start at zero.
        assert float(root[1].conv_offset.weight.detach().abs().sum()) == 0


@pytest.mark.parametrize("probability", [0.01, 0.3])
def test_bias_for_a_probability(probability):
    assert 1 / (1 + math.exp(-bias_for_prior(probability))) == pytest.approx(probability)
