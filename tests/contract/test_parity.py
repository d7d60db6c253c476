"""The reference cases: outputs, losses and gradient norms of the published implementation on seeded weights."""

import sys
from pathlib import Path

import pytest

from sdk import models
from sdk.models.folding import channels_last, for_inference

PARITY = Path(__file__).resolve().parents[3] / "shared" / "parity"
QUICK = (
    "detr_r50_8x2_150e_coco",
    "faster_rcnn_r50_fpn_1x_coco",
    "fcos_r50_caffe_fpn_gn-head_1x_coco",
    "mask_rcnn_r50_fpn_1x_coco",
    "retinanet_r50_fpn_1x_coco",
)
"""Run always; the others with ``-m long``."""
FOLDED = ("faster_rcnn_r50_fpn_1x_coco", "retinanet_r50_fpn_1x_coco")
CASES = sorted({*QUICK, *(file.name.removesuffix(".npz") for file in (PARITY / "cases").glob("*.npz"))})


@pytest.fixture(scope="module")
def check(shared):
    """The comparison that comes with the cases."""
    sys.path.insert(0, str(shared / "parity"))
    try:
        import check
    finally:
        sys.path.pop(0)
    return check


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad:UserWarning")
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.long) for n in CASES])
def test_it_gives_the_published_numbers(check, shared, name):
    share, told = check.check_outputs(name, models, shared / "parity")
    assert share >= 0.97, told
    equal, told = check.check_losses(name, models, shared / "parity")
    assert equal, told


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FOLDED else pytest.mark.long) for n in CASES])
def test_made_for_inference_it_gives_them_too(check, shared, name, monkeypatch):
    def folded(*arguments):
        case, model, batch, extra = load(*arguments)
        return case, for_inference(model), channels_last(batch), extra

    load = check.load
    monkeypatch.setattr(check, "load", folded)
    share, told = check.check_outputs(name, models, shared / "parity")
    assert share >= 0.97, told
