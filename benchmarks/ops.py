"""The native ops against their peers on the CPU: ``python -m benchmarks.ops [group ...]``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor

from sdk.ops import backend, reference
from sdk.ops.carafe import carafe
from sdk.ops.corner_pool import corner_pool
from sdk.ops.deform_roi_pool import deform_roi_pool
from sdk.ops.focal_loss import sigmoid_focal_loss
from sdk.ops.masked_conv import masked_conv2d
from sdk.ops.ms_deform_attn import ms_deform_attn
from sdk.ops.nms import batched_nms
from sdk.ops.overlaps import pairwise_iou
from sdk.ops.paste_masks import paste_and_encode
from sdk.ops.soft_nms import batched_soft_nms

from .measuring import Case, parser, run


def with_backward(call: Callable[..., Tensor], inputs: list[Tensor]) -> Callable[[], object]:
    """``call(*inputs)`` and the gradients of all inputs that want one."""
    wanted = [tensor for tensor in inputs if tensor.requires_grad]

    def run() -> object:
        output = call(*inputs)
        return torch.autograd.grad(output, wanted, torch.ones_like(output))

    return run


def boxes(count: int, height: float = 800, width: float = 1333, largest: float = 200) -> Tensor:
    corners = torch.rand(count, 2) * torch.tensor([width, height])
    return torch.cat([corners, corners + 1 + torch.rand(count, 2) * largest], dim=1)


def against(
    name: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    target: float | None = None,
    memory: float | None = None,
) -> Case:
    """The case of one peer, which ``name`` tells after a slash."""
    what, _, who = name.rpartition(" / ")
    return Case(
        what,
        ours,
        {who: peer},
        target={} if target is None else {who: target},
        memory={} if memory is None else {who: memory},
    )


def nms_cases() -> Iterator[Case]:
    found, scores, classes = boxes(20_000), torch.rand(20_000), torch.randint(80, (20_000,))
    yield against(
        "class-aware NMS, 20,000 boxes of 80 classes / torchvision",
        lambda: batched_nms(found, scores, classes, 0.5),
        lambda: torchvision.ops.batched_nms(found, scores, classes, 0.5),
        target=5,
    )
    few, few_scores, few_classes = found[:2000], scores[:2000], classes[:2000]
    yield against(
        "soft-NMS (linear), 2,000 boxes of 80 classes / PyTorch",
        lambda: batched_soft_nms(few, few_scores, few_classes),
        lambda: reference.batched_soft_nms(few, few_scores, few_classes, 0.5, 0.5, 1e-3, 1),
    )


def attention_cases() -> Iterator[Case]:
    shapes = torch.tensor([[100, 167], [50, 84], [25, 42], [13, 21]])
    areas = shapes.prod(1)
    starts = areas.cumsum(0) - areas
    total = int(areas.sum())
    value = torch.randn(1, total, 8, 32, requires_grad=True)
    locations = torch.rand(1, total, 8, 4, 4, 2, requires_grad=True)
    weights = torch.rand(1, total, 8, 4, 4).softmax(-1).requires_grad_()
    inputs = [value, shapes, starts, locations, weights]

    def forward(call: Callable[..., Tensor]) -> Callable[[], object]:
        def run() -> object:
            with torch.no_grad():
                return call(*inputs)

        return run

    yield against(
        f"deformable attention forward, {total:,} queries, 8 heads, 4 levels, 4 points / PyTorch",
        forward(ms_deform_attn),
        forward(reference.ms_deform_attn),
        target=3,
        memory=1 / 3,
    )
    yield against(
        "deformable attention forward and backward, the same / PyTorch",
        with_backward(ms_deform_attn, inputs),
        with_backward(reference.ms_deform_attn, inputs),
        target=3,
        memory=1 / 3,
    )


def mask_cases() -> Iterator[Case]:
    masks, found = torch.rand(100, 28, 28), boxes(100, largest=400)
    size = (800, 1333)
    yield against(
        "paste and encode 100 masks at 800 x 1333 / grid_sample and pycocotools",
        lambda: paste_and_encode(masks, found, size),
        lambda: reference.paste_and_encode(masks, found, *size, 0.5),
        target=8,
    )


def feature_cases() -> Iterator[Case]:
    features = torch.randn(1, 256, 50, 84, requires_grad=True)
    kernels = torch.rand(1, 25, 100, 168).softmax(1).requires_grad_()
    yield against(
        "CARAFE forward and backward, 256 x 50 x 84 by 2 / PyTorch",
        with_backward(lambda f, m: carafe(f, m, 5, 1, 2), [features, kernels]),
        with_backward(lambda f, m: reference.carafe(f, m, 5, 1, 2), [features, kernels]),
        target=3,
    )
    heat = torch.randn(2, 128, 128, 128, requires_grad=True)
    for direction in ("top", "left"):
        yield against(
            f"corner pooling ({direction}) forward and backward, 2 x 128 x 128 x 128 / PyTorch",
            with_backward(lambda x, d=direction: corner_pool(x, d), [heat]),
            with_backward(lambda x, d=direction: reference.corner_pool(x, d), [heat]),
            target=3,
        )
    plane = torch.randn(2, 256, 100, 168, requires_grad=True)
    rois = torch.cat([torch.randint(2, (512, 1)).float(), boxes(512)], dim=1)
    offsets = torch.randn(512, 2, 7, 7, requires_grad=True)
    pools = (deform_roi_pool, lambda *a: reference.deform_roi_pool(*a[:3], *a[3], *a[4:]))
    ours, peer = (
        with_backward(lambda x, o, pool=pool: pool(x, rois, o, (7, 7), 1 / 8, 0, 0.1), [plane, offsets])
        for pool in pools
    )
    name = "deformable RoI pooling forward and backward, 512 regions, 256 x 100 x 168 / PyTorch"
    yield against(name, ours, peer, target=3)
    inputs = [torch.randn(1, 256, 100, 168), torch.rand(1, 100, 168) < 0.1, torch.randn(256, 256, 3, 3)]
    yield against(
        "masked convolution 3 x 3, 256 channels, 10 % kept / dense",
        lambda: masked_conv2d(*inputs, padding=1),
        lambda: reference.masked_conv2d(*inputs, None, (1, 1), (1, 1)),
    )


def loss_cases() -> Iterator[Case]:
    logits = torch.randn(100_000, 80, requires_grad=True)
    labels = torch.randint(81, (100_000,))
    yield against(
        "sigmoid focal loss forward and backward, 100,000 x 80 / PyTorch",
        with_backward(lambda x: sigmoid_focal_loss(x, labels), [logits]),
        with_backward(lambda x: reference.sigmoid_focal_loss(x, labels, 2.0, 0.25, None), [logits]),
    )
    a, b = boxes(100_000), boxes(100)
    for kind in ("iou", "giou"):
        yield against(
            f"pairwise {kind}, 100,000 x 100 / PyTorch",
            lambda kind=kind: pairwise_iou(a, b, kind),
            lambda kind=kind: reference.pairwise_iou(a, b, kind, 1e-6),
        )


GROUPS = {
    "nms": nms_cases,
    "attention": attention_cases,
    "masks": mask_cases,
    "features": feature_cases,
    "losses": loss_cases,
}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures, and returns the figures."""
    made = parser("ops", __doc__ or "", turns=5)
    made.add_argument("groups", nargs="*", help=f"of {', '.join(GROUPS)} (default: all)")
    options = made.parse_args(arguments)
    torch.manual_seed(0)
    print(f"native ops: {backend.describe()['cpu']}")
    names = options.groups or (["losses"] if options.quick else list(GROUPS))
    return run("ops", (case for name in names for case in GROUPS[name]()), options, {})


if __name__ == "__main__":
    main()
