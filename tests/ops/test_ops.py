"""The public functions against other libraries and plain loops, compiled and in mixed precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from op_cases import boxes, rand
from pycocotools import mask as coco
from torch import Tensor

from sdk.ops import backend
from sdk.ops.carafe import carafe
from sdk.ops.corner_pool import corner_pool
from sdk.ops.deform_roi_pool import deform_roi_pool
from sdk.ops.focal_loss import sigmoid_focal_loss
from sdk.ops.masked_conv import masked_conv2d
from sdk.ops.ms_deform_attn import ms_deform_attn
from sdk.ops.nms import batched_nms, nms
from sdk.ops.overlaps import elementwise_iou, pairwise_iou
from sdk.ops.paste_masks import paste_and_encode, paste_masks
from sdk.ops.soft_nms import batched_soft_nms, soft_nms

FLOAT = torch.float32


@pytest.fixture(params=["native", "reference"], autouse=True)
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "reference":
        monkeypatch.setattr(backend, "native", lambda tensor: False)
    elif not backend.LOADED:
        pytest.skip(f"native ops: {backend.REASON}")


# Boxes


def test_nms_is_torchvisions_in_each_class() -> None:
    torch.manual_seed(0)
    for count in (0, 1, 400, 5000):
        found, scores, classes = boxes(count, FLOAT), torch.rand(count), torch.randint(80, (count,))
        keep = batched_nms(found, scores, classes, 0.5)
        assert keep.equal(torchvision.ops.batched_nms(found, scores, classes, 0.5))
        assert nms(found, scores, 0.5).equal(torchvision.ops.nms(found, scores, 0.5))


def test_nms_loses_no_precision_between_classes() -> None:
    # Moving classes 2^20 pixels apart would round away what distinguishes these boxes.
    torch.manual_seed(1)
    found = boxes(300, FLOAT, largest=2) + 2**18
    scores, classes = torch.rand(300), torch.randint(50, (300,))
    alone = torch.cat(
        [(classes == k).nonzero()[:, 0][torchvision.ops.nms(found[classes == k], scores[classes == k], 0.5)]
         for k in range(50)]
    )  # fmt: skip
    assert batched_nms(found, scores, classes, 0.5).sort().values.equal(alone.sort().values)


def test_nms_takes_equal_scores_by_index() -> None:
    found = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [50, 50, 60, 60], [50, 50, 60, 61]])
    assert nms(found, torch.tensor([0.5, 0.5, 0.0, -0.0]), 0.5).tolist() == [0, 2]


def loop_soft_nms(found: np.ndarray, scores: np.ndarray, threshold: float, sigma: float, lowest: float, method: str):
    """Soft-NMS as the paper's figure 2 has it, one pair of boxes at a time."""
    left = [[*box, score, i] for i, (box, score) in enumerate(zip(found.tolist(), scores.tolist()))]
    kept = []
    while left:
        left.sort(key=lambda row: (-row[4], row[5]))
        best = left.pop(0)
        kept.append(best)
        for row in left:
            width = min(best[2], row[2]) - max(best[0], row[0])
            height = min(best[3], row[3]) - max(best[1], row[1])
            overlap = max(width, 0) * max(height, 0)
            areas = (best[2] - best[0]) * (best[3] - best[1]) + (row[2] - row[0]) * (row[3] - row[1])
            iou = overlap / (areas - overlap)
            if method == "gaussian":
                row[4] *= math.exp(-(iou**2) / sigma)
            elif iou >= threshold:
                row[4] *= 1 - iou if method == "linear" else 0
        left = [row for row in left if row[4] >= lowest]
    return [row[4] for row in kept], [row[5] for row in kept]


@pytest.mark.parametrize("method", ["linear", "gaussian", "hard"])
def test_soft_nms_is_the_loop_of_the_paper(method: str) -> None:
    torch.manual_seed(2)
    found, scores = boxes(60, torch.float64), torch.rand(60, dtype=torch.float64)
    decayed, keep = soft_nms(found, scores, 0.3, 0.4, 0.05, method)
    expected, indices = loop_soft_nms(found.numpy(), scores.numpy(), 0.3, 0.4, 0.05, method)
    assert keep.tolist() == indices
    torch.testing.assert_close(decayed, torch.tensor(expected, dtype=torch.float64))


def test_soft_nms_works_inside_groups() -> None:
    torch.manual_seed(3)
    found, scores, groups = boxes(80, FLOAT), torch.rand(80) + 0.1, torch.randint(5, (80,))
    decayed, keep = batched_soft_nms(found, scores, groups, 0.3)
    assert decayed.equal(decayed.sort(descending=True).values)
    for group in range(5):
        members = (groups == group).nonzero()[:, 0]
        alone, order = soft_nms(found[members], scores[members], 0.3)
        inside = groups[keep] == group
        assert keep[inside].equal(members[order])
        torch.testing.assert_close(decayed[inside], alone)


def test_overlaps_are_torchvisions() -> None:
    torch.manual_seed(4)
    a, b = boxes(50, FLOAT), boxes(40, FLOAT)
    torch.testing.assert_close(pairwise_iou(a, b), torchvision.ops.box_iou(a, b))
    torch.testing.assert_close(pairwise_iou(a, b, "giou"), torchvision.ops.generalized_box_iou(a, b))
    for kind in ("iou", "iof", "giou"):
        torch.testing.assert_close(elementwise_iou(a[:40], b, kind), pairwise_iou(a, b, kind)[:40].diagonal())
    inside, whole = torch.tensor([[2.0, 2, 4, 4]]), torch.tensor([[0.0, 0, 8, 3]])
    assert pairwise_iou(inside, whole, "iof").item() == 0.5


# Masks


def grid_sample_paste(masks: Tensor, found: Tensor, height: int, width: int) -> Tensor:
    ys, xs = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    out = []
    for mask, (x0, y0, x1, y1) in zip(masks, found):
        grid_y, grid_x = torch.meshgrid((ys - y0) / (y1 - y0) * 2 - 1, (xs - x0) / (x1 - x0) * 2 - 1, indexing="ij")
        out.append(F.grid_sample(mask[None, None], torch.stack([grid_x, grid_y], 2)[None], align_corners=False)[0, 0])
    return torch.stack(out) >= 0.5


def test_pasting_is_grid_sample() -> None:
    torch.manual_seed(5)
    masks, found = torch.rand(60, 28, 28), boxes(60, FLOAT, largest=150) - 20
    found[0] = torch.tensor([0.0, 0, 120, 90])  # edges on edges of cells
    expected = grid_sample_paste(masks, found, 90, 120)
    assert paste_masks(masks, found, (90, 120)).equal(expected)


@pytest.mark.parametrize("size", [(90, 120), (1, 1), (3, 200)])
def test_encoding_is_pycocotools(size: tuple[int, int]) -> None:
    torch.manual_seed(6)
    masks, found = torch.rand(40, 28, 28) ** 0.3, boxes(40, FLOAT, largest=150) - 20
    found[:3] = torch.tensor([[5.0, 5, 5, 9], [-50, -50, -1, -1], [-10, -10, 500, 500]])
    encoded = paste_and_encode(masks, found, size)
    pasted = paste_masks(masks, found, size).permute(1, 2, 0).numpy()
    assert encoded == coco.encode(np.asfortranarray(pasted.astype(np.uint8)))


# Features


def test_plain_pooling_is_roi_align() -> None:
    torch.manual_seed(7)
    features = torch.rand(2, 5, 20, 30)
    rois = torch.cat([torch.randint(2, (50, 1)).float(), boxes(50, FLOAT)], 1)
    for ratio in (0, 2):
        expected = torchvision.ops.roi_align(features, rois, (3, 4), 0.3, ratio, aligned=True)
        torch.testing.assert_close(deform_roi_pool(features, rois, None, (3, 4), 0.3, ratio), expected)


def test_offset_moves_a_bin_by_a_part_of_the_region() -> None:
    features = torch.arange(30.0).view(1, 1, 1, 30).expand(1, 1, 30, 30).contiguous()
    rois, offset = torch.tensor([[0.0, 5, 5, 15, 15]]), torch.zeros(1, 2, 2, 2)
    still = deform_roi_pool(features, rois, offset, 2)
    offset[0, 0, 1, 0] = 3.0  # gamma 0.1 times width 10 times 3
    moved = deform_roi_pool(features, rois, offset, 2)
    torch.testing.assert_close(moved - still, torch.tensor([[[[0.0, 0], [3, 0]]]]))


def test_one_sample_at_a_pixel_centre_is_the_pixel() -> None:
    value = torch.arange(12.0).view(1, 12, 1, 1)
    location = torch.tensor([2.5 / 4, 1.5 / 3]).view(1, 1, 1, 1, 1, 2)
    found = ms_deform_attn(value, torch.tensor([[3, 4]]), torch.tensor([0]), location, torch.ones(1, 1, 1, 1, 1))
    assert found.item() == 1 * 4 + 2


def test_carafe_with_one_tap_is_nearest_upsampling() -> None:
    torch.manual_seed(8)
    features, kernels = torch.rand(2, 4, 5, 6), torch.zeros(2, 9, 15, 18)
    kernels[:, 4] = 1
    assert carafe(features, kernels, 3, 1, 3).equal(F.interpolate(features, scale_factor=3, mode="nearest"))
    kernels = torch.zeros(2, 9, 15, 18)
    kernels[:, 5] = 1  # the right neighbour
    shifted = F.pad(features, (0, 1))[..., 1:]
    assert carafe(features, kernels, 3, 1, 3).equal(F.interpolate(shifted, scale_factor=3, mode="nearest"))


def test_corner_pooling_carries_maxima() -> None:
    x = torch.tensor([[2.0, 1, 3], [0, 5, 4]])[None, None]
    expected = {
        "top": [[2.0, 5, 4], [0, 5, 4]],
        "bottom": [[2.0, 1, 3], [2, 5, 4]],
        "left": [[3.0, 3, 3], [5, 5, 4]],
        "right": [[2.0, 2, 3], [0, 5, 5]],
    }
    for direction, values in expected.items():
        assert corner_pool(x, direction)[0, 0].tolist() == values


@pytest.mark.parametrize("bias", [True, False])
def test_masked_convolution_is_a_dense_one_times_the_mask(bias: bool) -> None:
    torch.manual_seed(9)
    x, weight = torch.randn(2, 5, 12, 9), torch.randn(6, 5, 3, 3)
    added = torch.randn(6) if bias else None
    dense = F.conv2d(x, weight, added, stride=2, padding=1)
    for mask in (torch.rand(2, 6, 5) > 0.6, torch.rand(1, 6, 5), torch.zeros(1, 6, 5)):
        found = masked_conv2d(x, mask, weight, added, padding=1, stride=2)
        torch.testing.assert_close(found, dense * (mask > 0)[:, None], rtol=1e-4, atol=1e-5)


def test_focal_loss_is_torchvisions() -> None:
    torch.manual_seed(10)
    logits, labels = torch.randn(40, 7) * 20, torch.randint(8, (40,))
    targets = F.one_hot(labels, 8)[:, :7].float()
    expected = torchvision.ops.sigmoid_focal_loss(logits, targets, 0.3, 1.7)
    torch.testing.assert_close(sigmoid_focal_loss(logits, labels, 1.7, 0.3), expected, rtol=1e-4, atol=1e-6)
    weight = torch.rand(40)
    weighted = sigmoid_focal_loss(logits, labels, 1.7, 0.3, weight)
    torch.testing.assert_close(weighted, expected * weight[:, None], rtol=1e-4, atol=1e-6)


def test_focal_loss_shows_nan_and_survives_infinity() -> None:
    logits = torch.tensor([[math.nan, math.inf, -math.inf]])
    found = sigmoid_focal_loss(logits, torch.tensor([1]))
    assert found[0, 0].isnan()
    assert found[0, 1:].tolist() == [0, 0]


# All together


def calls(dtype: torch.dtype) -> dict[str, tuple[Callable, list]]:
    """Every function with dense output, on small inputs of which each may want a gradient."""
    torch.manual_seed(11)
    features = rand(2, 4, 6, 8, dtype=dtype)
    found, labels = boxes(9, FLOAT), torch.randint(8, (9,))
    rois = torch.cat([torch.randint(2, (9, 1)).float(), found], 1)
    shapes, starts, keep = torch.tensor([[6, 8]]), torch.tensor([0]), torch.rand(1, 6, 8) > 0.5
    return {
        "pairwise_iou": (lambda a, b: pairwise_iou(a, b, "giou"), [found, boxes(5, dtype)]),
        "deform_roi_pool": (
            lambda x, o: deform_roi_pool(x, rois, o, 2, 0.1),
            [features, rand(9, 2, 2, 2, dtype=dtype)],
        ),
        "ms_deform_attn": (
            lambda v, w: ms_deform_attn(v, shapes, starts, torch.full((2, 5, 2, 1, 3, 2), 0.3), w),
            [rand(2, 48, 2, 4, dtype=dtype), rand(2, 5, 2, 1, 3, dtype=dtype)],
        ),
        "carafe": (lambda x, m: carafe(x, m, 3, 1, 2), [features, torch.rand(2, 9, 12, 16)]),
        "masked_conv2d": (lambda x, w: masked_conv2d(x, keep, w, padding=1), [features, rand(3, 4, 3, 3, dtype=dtype)]),
        "corner_pool": (lambda x: corner_pool(x, "left"), [features]),
        "sigmoid_focal_loss": (lambda x: sigmoid_focal_loss(x, labels), [rand(9, 7, dtype=dtype)]),
        "paste_masks": (lambda m: paste_masks(m, found, (30, 40)), [rand(9, 7, 7, dtype=dtype)]),
    }


def with_gradients(function: Callable, inputs: list[Tensor]) -> list[Tensor]:
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    output = function(*inputs)
    if output.dtype == torch.bool:
        return [output]
    return [output.detach(), *torch.autograd.grad(output.sum(), inputs)]


@pytest.mark.parametrize("name", calls(FLOAT))
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.long)])
def test_compiles_as_one_graph(name: str, compiler: str) -> None:
    function, inputs = calls(FLOAT)[name]
    if name == "deform_roi_pool" and not backend.native(inputs[0]):
        pytest.skip("the reference groups regions by their size, which is data")
    if name == "ms_deform_attn" and not backend.native(inputs[0]):
        pytest.skip("the reference reads the levels, which are data")
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend=compiler)
    for found, expected in zip(with_gradients(compiled, inputs), with_gradients(function, inputs)):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_suppression_compiles_as_one_graph() -> None:
    if not backend.native(torch.empty(0)):
        pytest.skip("the reference loops over the groups, which are data")
    torch.compiler.reset()
    torch.manual_seed(12)
    found, scores, classes = boxes(50, FLOAT), torch.rand(50), torch.randint(3, (50,))
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        for function in (lambda *a: batched_nms(*a, 0.5), batched_soft_nms):
            compiled = torch.compile(function, fullgraph=True, backend="aot_eager")(found, scores, classes)
            torch.testing.assert_close(compiled, function(found, scores, classes))


@pytest.mark.parametrize("name", calls(FLOAT))
def test_mixed_precision(name: str) -> None:
    function, inputs = calls(torch.bfloat16)[name]
    with torch.autocast("cpu", torch.bfloat16):
        found = with_gradients(function, inputs)
    expected = with_gradients(function, [tensor.float() for tensor in inputs])
    for one, other in zip(found, expected):
        one, other = one.float(), other.float()
        torch.testing.assert_close(one, other, rtol=5e-2, atol=5e-2 * max(1.0, other.abs().max().item()))


def test_tensors_on_several_devices_are_refused() -> None:
    found, scores = boxes(4, FLOAT), torch.rand(4)
    with pytest.raises(ValueError, match="scores: expected on cpu like boxes, found on meta"):
        nms(found, scores.to("meta"), 0.5)
    with pytest.raises(ValueError, match="labels: expected on cpu"):
        sigmoid_focal_loss(torch.rand(4, 3), torch.zeros(4, dtype=torch.int64, device="meta"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pairwise_iou(torch.rand(3, 5), torch.rand(3, 4)), r"a: expected shape \(any, 4\), found \(3, 5\)"),
        (lambda: pairwise_iou(torch.rand(3, 4), torch.rand(3, 4), "diou"), "kind: expected"),
        (lambda: corner_pool(torch.rand(1, 1, 2, 2), "up"), "direction: expected"),
        (lambda: nms(torch.full((2, 4), math.nan), torch.rand(2), 0.5), "boxes: expected no NaN"),
        (lambda: soft_nms(torch.rand(2, 4), torch.rand(2), method="cubic"), "method: expected"),
        (lambda: sigmoid_focal_loss(torch.rand(2, 3), torch.tensor([0, 4])), "labels: expected values from 0 to 3"),
        (lambda: paste_masks(torch.rand(1, 7, 7), torch.rand(1, 4), (-1, 5)), "size: expected"),
        (lambda: carafe(torch.rand(1, 2, 3, 3), torch.rand(1, 4, 6, 6), 2, 1, 2), "kernel_size: expected an odd"),
    ],
)
def test_errors_name_what_is_wrong(call: Callable, message: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=message):
        call()


def test_backend_says_what_runs() -> None:
    said = backend.describe()
    assert set(said) == {"cpu", "cuda"}
    assert all(line.split(":")[0] in ("native", "reference") for line in said.values())
