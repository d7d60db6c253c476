"""Attention over the pixels of a map, pixel by pixel.

Shape letters: B images, C channels, M heads, D channels of a head, H x W query pixels, h x w key pixels.
"""

from __future__ import annotations

import math

import pytest
import torch

from sdk.models.layers.context_block import ContextBlock
from sdk.models.layers.generalized_attention import GeneralizedAttention

CHANNELS, HEADS = 8, 2
WIDTH = CHANNELS // HEADS


def softmax(values):
    top = max(values)
    total = sum(math.exp(v - top) for v in values)
    return [math.exp(v - top) / total for v in values]


def test_context_block():
    torch.manual_seed(0)
    block, x = ContextBlock(CHANNELS, ratio=0.5), torch.randn(2, CHANNELS, 3, 4)
    assert torch.equal(block(x), x)
    first, norm, _, last = block.channel_add_conv
    torch.nn.init.normal_(last.weight)
    torch.nn.init.normal_(last.bias)
    torch.nn.init.normal_(norm.weight)
    with torch.no_grad():
        got = block(x)
        for image in range(2):
            pixels = [x[image, :, row, column] for row in range(3) for column in range(4)]
            mask = block.conv_mask
            weights = softmax([float(mask.weight[0, :, 0, 0] @ pixel + mask.bias[0]) for pixel in pixels])
            context = sum(w * pixel for w, pixel in zip(weights, pixels, strict=True))
            hidden = first.weight[:, :, 0, 0] @ context + first.bias
            spread = ((hidden - hidden.mean()) ** 2).mean()
            hidden = (hidden - hidden.mean()) / (spread + 1e-5).sqrt() * norm.weight.flatten() + norm.bias.flatten()
            added = last.weight[:, :, 0, 0] @ hidden.clamp(min=0) + last.bias
            torch.testing.assert_close(got[image], x[image] + added[:, None, None])


def position(layer, distance):
    """(M, D) features of a distance along one axis: sines and cosines of growing wave length, projected."""
    waves = [1000 ** (4 * i / CHANNELS) for i in range(CHANNELS // 4)]
    features = [math.sin(distance / w) for w in waves] + [math.cos(distance / w) for w in waves]
    return (layer.weight @ torch.tensor(features) / math.sqrt(2)).view(HEADS, WIDTH)


@pytest.mark.parametrize("terms", ["1000", "0100", "0010", "0001", "1010", "1111", "0110", "1001"])
def test_generalized_attention(terms):
    """Equation 3: every query weighs the keys by the sum of the terms that are in use."""
    torch.manual_seed(0)
    size = 4
    layer, x = GeneralizedAttention(CHANNELS, terms=terms, heads=HEADS), torch.randn(1, CHANNELS, size, size)
    torch.nn.init.constant_(layer.gamma, 0.7)
    content, content_position, key_only, position_only = (flag == "1" for flag in terms)

    def projected(conv, row, column):
        return (conv.weight[:, :, 0, 0] @ x[0, :, row, column]).view(HEADS, WIDTH)

    # Keys are every other pixel.
    keys = [(row, column) for row in range(0, size, 2) for column in range(0, size, 2)]
    with torch.no_grad():
        got = layer(x)
        for row in range(size):
            for column in range(size):
                energy = torch.zeros(HEADS, len(keys))
                for place, (key_row, key_column) in enumerate(keys):
                    if content or key_only:
                        asked = projected(layer.query_conv, row, column) if content else torch.zeros(HEADS, WIDTH)
                        asked = asked + (layer.appr_bias.view(HEADS, WIDTH) if key_only else 0)
                        energy[:, place] += (asked * projected(layer.key_conv, key_row, key_column)).sum(dim=1)
                    if not (content_position or position_only):
                        continue
                    bias = layer.geom_bias.view(HEADS, WIDTH) if position_only else 0
                    # Without the last term the published models ask for rows with the mirrored pixel's query.
                    mirrored = (row, column) if position_only else (column, row)
                    for fc, distance, pixel in (
                        (layer.appr_geom_fc_x, column - key_column, (row, column)),
                        (layer.appr_geom_fc_y, row - key_row, mirrored),
                    ):
                        asked = (projected(layer.query_conv, *pixel) if content_position else 0) + bias
                        energy[:, place] += (asked * position(fc, distance)).sum(dim=1)
                out = torch.zeros(HEADS, WIDTH)
                for head in range(HEADS):
                    weights = softmax(energy[head].tolist())
                    for weight, key in zip(weights, keys, strict=True):
                        out[head] += weight * projected(layer.value_conv, *key)[head]
                added = layer.proj_conv.weight[:, :, 0, 0] @ out.flatten() + layer.proj_conv.bias
                torch.testing.assert_close(got[0, :, row, column], x[0, :, row, column] + 0.7 * added)


def test_attention_starts_as_the_identity():
    x = torch.randn(1, CHANNELS, 4, 6)
    assert torch.equal(GeneralizedAttention(CHANNELS, terms="1111", heads=HEADS)(x), x)


@pytest.mark.parametrize("terms", ["", "0000", "10", "1012"])
def test_terms_are_four_flags(terms):
    with pytest.raises(ValueError, match="four flags"):
        GeneralizedAttention(CHANNELS, terms=terms)


def test_mirrored_queries_need_square_maps():
    with pytest.raises(ValueError, match="square"):
        GeneralizedAttention(CHANNELS, terms="0110", heads=HEADS)(torch.randn(1, CHANNELS, 4, 6))
