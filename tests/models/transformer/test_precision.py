"""Mixed precision and compilation of backbone, neck and transformer against eager float32.

Tolerances: bfloat16 carries three digits, so logits may move by 0.1 and boxes, in 0..1 of the image, by 0.02; compiled
code only sums in another order.
"""

from functools import partial

import pytest
import torch

from sdk.models.backbones.resnet import ResNet
from sdk.models.detectors.set_prediction import SetDetector, SetOutputs
from sdk.models.methods.deformable_detr import deformable_detr
from sdk.models.methods.detr import detr
from sdk.models.structures import ImageBatch, Targets

METHODS = {
    "detr": (detr, (3,)),
    "deformable_detr": (deformable_detr, (1, 2, 3)),
    "two_stage": (partial(deformable_detr, refine=True, two_stage=True), (1, 2, 3)),
}


def small(name: str) -> SetDetector:
    torch.manual_seed(0)
    method, stages = METHODS[name]
    backbone = partial(ResNet, 18, out_stages=stages, base_channels=8)
    return method(3, backbone=backbone, queries=6, layers=2, dropout=0.0).eval()


def some_images() -> ImageBatch:
    torch.manual_seed(1)
    return ImageBatch(torch.randn(2, 3, 64, 96), [(64, 96), (40, 64)])


def assert_near(got: SetOutputs, want: SetOutputs, logits: float, boxes: float) -> None:
    torch.testing.assert_close(got.logits, want.logits, rtol=0, atol=logits)
    torch.testing.assert_close(got.boxes, want.boxes, rtol=0, atol=boxes)


@pytest.mark.parametrize("name", ["detr", "deformable_detr"])
def test_bfloat16_autocast(name: str) -> None:
    model, images = small(name), some_images()
    with torch.no_grad():
        want = model.outputs(images)[0]
        with torch.autocast("cpu", torch.bfloat16):
            got = model.outputs(images)[0]
    assert got.boxes.dtype == torch.float32
    assert_near(got, want, 0.1, 0.02)


@pytest.mark.parametrize("name", METHODS)
def test_bfloat16_losses_are_finite_and_reach_every_parameter(name: str) -> None:
    model, images = small(name).train(), some_images()
    targets = [
        Targets(torch.tensor([[5.0, 5, 40, 30]]), torch.tensor([2])),
        Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
    ]
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(images, targets)
    assert all(bool(value.isfinite()) for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def compiled(model: SetDetector, backend: str) -> SetDetector:
    for part in (model.backbone, model.neck, model.bbox_head):
        if part is not None:
            part.compile(backend=backend)
    return model


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.long, id="inductor")])
@pytest.mark.parametrize("name", METHODS)
def test_compiled(name: str, backend: str) -> None:
    model, images = small(name), some_images()
    with torch.no_grad():
        want = model.outputs(images)[0]
        got = compiled(model, backend).outputs(images)[0]
    assert_near(got, want, 1e-3, 1e-4)
