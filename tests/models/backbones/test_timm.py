"""Extractors of ``timm`` under methods with a pyramid."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

import sdk
from sdk import models
from sdk.models import ImageBatch, Targets
from sdk.models.backbones.timm import TimmBackbone
from sdk.models.weights import WeightsError

timm = pytest.importorskip("timm")

METHODS = ("retinanet_r50_fpn_1x_coco", "faster_rcnn_r50_fpn_1x_coco", "fcos_r50_caffe_fpn_gn-head_1x_coco")
EXTRACTORS = (
    "resnet18.a1_in1k", "convnext_atto.d2_in1k", "convnextv2_atto.fcmae", "swin_tiny_patch4_window7_224.ms_in1k",
    "swinv2_tiny_window8_256", "vit_tiny_patch16_224.augreg_in21k", "vit_small_patch14_dinov2.lvd142m",
    "vit_small_patch16_dinov3.lvd1689m", "efficientnet_b0.ra_in1k", "mobilenetv3_small_100", "mobilenetv4_conv_small",
    "regnety_002", "densenet121", "resnest14d", "rexnet_100", "ghostnet_100", "edgenext_xx_small", "poolformer_s12",
    "pvt_v2_b0", "dla34", "cspdarknet53", "repvit_m0_9", "eva02_tiny_patch14_224", "inception_next_atto",
)  # fmt: skip
QUICK = {
    ("convnext_atto.d2_in1k", METHODS[0]),
    ("vit_tiny_patch16_224.augreg_in21k", METHODS[1]),
    ("mobilenetv4_conv_small", METHODS[2]),
}
ALL = [
    pytest.param(extractor, method, marks=() if (extractor, method) in QUICK else pytest.mark.long)
    for extractor in EXTRACTORS
    for method in METHODS
]


@pytest.mark.parametrize(("extractor", "method"), ALL)
def test_it_takes_a_step_and_predicts(extractor, method):
    torch.manual_seed(0)
    model = models.create(method, num_classes=3, weights=None, backbone=f"timm/{extractor}")
    images = ImageBatch(torch.randn(1, 3, 96, 160), [(96, 136)])
    targets = [Targets(torch.tensor([[10.0, 20.0, 70.0, 80.0]]), torch.tensor([1]))]
    maps = model.backbone(images.pixels)
    assert [tuple(one.shape[2:]) for one in maps[:3]] == [(24, 40), (12, 20), (6, 10)]
    assert tuple(one.shape[1] for one in maps) == model.backbone.out_channels
    loss = torch.stack(list(model.train()(images, targets).values())).sum()
    loss.backward()
    assert loss.isfinite()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.backbone.body.parameters())
    with torch.no_grad():
        assert len(model.eval().predict(images)) == 1


@torch.no_grad()
def test_a_file_of_the_extractor_is_loaded(tmp_path):
    torch.manual_seed(1)
    whole = timm.create_model("convnext_atto.d2_in1k").eval()
    save_file(whole.state_dict(), str(tmp_path / "model.safetensors"))
    name = "retinanet_r50_fpn_1x_coco"
    model = models.create(name, 3, tmp_path / "model.safetensors", backbone="timm/convnext_atto.d2_in1k").eval()
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model.backbone(x)[-1], whole.forward_features(x), rtol=1e-4, atol=1e-4)


def test_the_row_says_pixels_weights_and_stages():
    recipe = models.find_recipe("rtdetr_r18vd_6x_coco+timm/vit_tiny_patch16_224.augreg_in21k")
    assert recipe.preprocessing.mean == recipe.preprocessing.std == (127.5, 127.5, 127.5)
    assert recipe.preprocessing.size == (640, 640)
    assert models.find_recipe("detr_r50_8x2_150e_coco+timm/resnet18").preprocessing.divisor == 32
    assert recipe.starting_weights == "backbone"
    model = models.create(recipe.name, num_classes=2, weights=None)
    assert model.backbone.out_channels == (96, 192, 192)


def test_wrong_names_are_told():
    with pytest.raises(ValueError, match="convnext_tiny"):
        models.create(METHODS[0], weights=None, backbone="timm/convnext_tinny")
    with pytest.raises(ValueError, match="expected timm/"):
        models.create(METHODS[0], weights=None, backbone="convnext_tiny")
    with pytest.raises(ValueError, match="needs its own"):
        models.create("ssd300_coco", weights=None, backbone="timm/resnet18")
    with pytest.raises(ValueError, match="needs its own"):
        models.create("faster_rcnn_r50_caffe_dc5_1x_coco", weights=None, backbone="timm/resnet18")
    with pytest.raises(ValueError, match="only the name of a row"):
        sdk.fit(sdk.datasets.Shapes(2), models.create("fcos_tiny", weights=None), backbone="timm/resnet18")


def test_without_the_hub_it_says_what_to_give(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(TimmBackbone, "load", lambda self, state: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(WeightsError, match="give a file of it as weights"):
        models.create(METHODS[0], backbone="timm/resnet18.a1_in1k")


def test_a_run_is_trained_and_opened_again(tmp_path):
    shapes = sdk.datasets.Shapes(4, size=(64, 64))
    model = models.create("fcos_tiny", shapes, None, backbone="timm/mobilenetv4_conv_small")
    run = sdk.fit(shapes, model, epochs=1, workers=0, out=tmp_path / "run")
    again = sdk.evaluate(shapes, tmp_path / "run", workers=0)
    assert again.counts.images == len(shapes.val)
    assert isinstance(run.model.backbone, TimmBackbone)
