"""Attention, sampling and positions against plain formulas."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sdk.models.transformer.attention import Attention, DeformableAttention, Levels, Memory
from sdk.models.transformer.positions import padding_mask, resized_mask, sine_embedding, sine_positions


def test_attention_is_a_softmax_over_places_inside_the_image() -> None:
    torch.manual_seed(0)
    heads, channels = 2, 8
    module = Attention(channels, heads).eval()
    query, query_pos = torch.randn(2, 3, channels), torch.randn(2, 3, channels)
    values, positions = torch.randn(2, 5, channels), torch.randn(2, 5, channels)
    padding = torch.tensor([[False] * 5, [False, False, True, True, False]])
    got = module(query, query_pos, Memory(values, positions, padding))
    w_q, w_k, w_v = module.attn.in_proj_weight.chunk(3)
    b_q, b_k, b_v = module.attn.in_proj_bias.chunk(3)
    q = ((query + query_pos) @ w_q.T + b_q).unflatten(2, (heads, -1))
    k = ((values + positions) @ w_k.T + b_k).unflatten(2, (heads, -1))
    v = (values @ w_v.T + b_v).unflatten(2, (heads, -1))
    scores = torch.einsum("bqmd,bsmd->bmqs", q, k) / math.sqrt(channels / heads)
    weights = scores.masked_fill(padding[:, None, None], -torch.inf).softmax(-1)
    want = module.attn.out_proj(torch.einsum("bmqs,bsmd->bqmd", weights, v).flatten(2))
    torch.testing.assert_close(got, want)


def test_attention_runs_through_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k))
    query, values = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    Attention(8, 2)(query, None, Memory(values, padding=torch.zeros(1, 5, dtype=torch.bool)))
    assert calls


def sampled(values: Tensor, height: int, width: int, x: float, y: float) -> Tensor:
    """(H W, D) values at x and y, 0..1 of the map, by bilinear interpolation; zero outside."""
    x, y = x * width - 0.5, y * height - 0.5
    total = torch.zeros(values.shape[1])
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                total = total + values[row * width + column] * (1 - abs(row - y)) * (1 - abs(column - x))
    return total


@pytest.mark.parametrize("parts", [2, 4])
def test_deformable_attention_samples_around_its_references(parts: int) -> None:
    torch.manual_seed(1)
    heads, levels, points, channels = 2, 2, 3, 8
    shapes = ((4, 5), (2, 3))
    module = DeformableAttention(channels, heads, levels, points, dropout=0.0)
    torch.nn.init.normal_(module.sampling_offsets.weight, std=0.3)
    torch.nn.init.normal_(module.attention_weights.weight)
    query, values = torch.randn(1, 3, channels), torch.randn(1, 26, channels)
    padding = torch.zeros(1, 26, dtype=torch.bool)
    padding[0, 4] = padding[0, 22] = True
    valid = torch.tensor([[[0.8, 1.0], [0.7, 0.5]]])
    reference = torch.rand(1, 3, parts)
    memory = Memory(values, None, padding, Levels(shapes, torch.tensor(shapes), torch.tensor([0, 20]), valid))
    got = module(query, None, memory, reference)
    value = (module.value_proj(values)[0] * ~padding[0, :, None]).unflatten(1, (heads, -1))
    offsets = module.sampling_offsets(query)[0].reshape(3, heads, levels, points, 2)
    weights = module.attention_weights(query)[0].reshape(3, heads, -1).softmax(-1).reshape(3, heads, levels, points)
    want = torch.zeros(3, heads, channels // heads)
    for q in range(3):
        for m in range(heads):
            for level, (height, width) in enumerate(shapes):
                own = value[0 if level == 0 else 20 :, m][: height * width]
                scale = valid[0, level].tolist()
                centre = [reference[0, q, i].item() * scale[i] for i in (0, 1)]
                for p in range(points):
                    dx, dy = offsets[q, m, level, p].tolist()
                    if parts == 2:
                        x, y = centre[0] + dx / width, centre[1] + dy / height
                    else:
                        w, h = (reference[0, q, 2 + i].item() * scale[i] for i in (0, 1))
                        x, y = centre[0] + dx / points * w / 2, centre[1] + dy / points * h / 2
                    want[q, m] += weights[q, m, level, p] * sampled(own, height, width, x, y)
    torch.testing.assert_close(got[0], module.output_proj(want.flatten(1)), rtol=1e-4, atol=1e-5)


def test_padding_masks() -> None:
    mask = padding_mask([(2, 3), (4, 4)], (4, 4), torch.device("cpu"))
    assert mask.shape == (2, 4, 4)
    assert int((~mask[0]).sum()) == 6
    assert not bool(mask[0, :2, :3].any())
    assert not bool(mask[1].any())
    assert torch.equal(resized_mask(mask, torch.zeros(2, 1, 2, 2)), mask[:, ::2, ::2])


def test_sine_positions_by_hand() -> None:
    mask = padding_mask([(2, 3)], (3, 4), torch.device("cpu"))
    got = sine_positions(mask, channels=4, offset=-0.5)
    assert got.shape == (1, 8, 3, 4)
    y, x = (2 - 0.5) / 2 * 2 * math.pi, (1 - 0.5) / 3 * 2 * math.pi
    want = []
    for value in (y, x):
        want += [math.sin(value), math.cos(value), math.sin(value / 100), math.cos(value / 100)]
    torch.testing.assert_close(got[0, :, 1, 0], torch.tensor(want), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sine_embedding(torch.tensor([y, x]), 4).flatten(), torch.tensor(want))
