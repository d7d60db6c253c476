"""Classifiers' files as backbones, with names spelled out."""

import hashlib
import re
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from sdk import models
from sdk.models.backbones.regnet import RegNet
from sdk.models.weights import WeightsError, load_weights
from sdk.models.weights.backbones import FILES, to_backbone
from sdk.models.zoo import recipes

PYCLS = ((r"^layer(\d)\.(\d+)\.downsample\.0", r"s\1.b\2.proj"), (r"^layer(\d)\.(\d+)\.downsample\.1", r"s\1.b\2.bn"),
         (r"^layer(\d)\.(\d+)\.conv1", r"s\1.b\2.f.a"), (r"^layer(\d)\.(\d+)\.bn1", r"s\1.b\2.f.a_bn"),
         (r"^layer(\d)\.(\d+)\.conv2", r"s\1.b\2.f.b"), (r"^layer(\d)\.(\d+)\.bn2", r"s\1.b\2.f.b_bn"),
         (r"^layer(\d)\.(\d+)\.conv3", r"s\1.b\2.f.c"), (r"^layer(\d)\.(\d+)\.bn3", r"s\1.b\2.f.c_bn"),
         (r"^conv1", "stem.conv"), (r"^bn1", "stem.bn"))  # fmt: skip


def pycls(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A RegNet's state under the names of pycls, whose blocks count from one."""
    result = {"head.fc.weight": torch.ones(1000, 8)}
    for key, value in state.items():
        for pattern, old in PYCLS:
            key = re.sub(pattern, old, key)
        result[re.sub(r"\.b(\d+)\.", lambda m: f".b{int(m[1]) + 1}.", key)] = value
    return result


def same(model: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("row", "classifier"),
    [
        ("ld_r18_gflv1_r101_fpn_coco_1x", torchvision.models.resnet18),
        ("faster_rcnn_r50_fpn_1x_coco", torchvision.models.resnet50),
        ("faster_rcnn_r50_caffe_fpn_1x_coco", torchvision.models.resnet50),
        ("faster_rcnn_x101_64x4d_fpn_1x_coco", torchvision.models.resnext101_64x4d),
    ],
)
def test_torchvision_files(tmp_path: Path, row: str, classifier) -> None:
    torch.manual_seed(0)
    state = classifier().state_dict()
    torch.save(state, tmp_path / "classifier.pth")
    model = models.create(row, weights=tmp_path / "classifier.pth")
    assert same(model.backbone, state)  # type: ignore[arg-type]


def test_torchvision_vgg_fills_what_it_has(tmp_path: Path, caplog) -> None:
    state = torchvision.models.vgg16().state_dict()
    torch.save(state, tmp_path / "vgg.pth")
    model = models.create("ssd300_coco", weights=tmp_path / "vgg.pth")
    found = model.backbone.state_dict()  # type: ignore[union-attr]
    assert torch.equal(found["features.28.weight"], state["features.28.weight"])
    assert "4 entries of the backbone start fresh: features.31" in caplog.text


def test_pycls_regnet() -> None:
    state = models.create("faster_rcnn_regnetx-3.2GF_fpn_1x_coco", weights=None).backbone.state_dict()  # type: ignore[union-attr]
    found = to_backbone(pycls(state), state)
    assert found.keys() == state.keys()
    assert all(value is state[key] for key, value in found.items())


def test_torchvision_regnet() -> None:
    theirs = torchvision.models.regnet_x_3_2gf().state_dict()
    model = models.create("faster_rcnn_regnetx-3.2GF_fpn_1x_coco", weights=None).backbone
    assert isinstance(model, RegNet)
    found = to_backbone(theirs, model.state_dict())
    model.load_state_dict(found, strict=True)
    batch = torch.randn(1, 3, 64, 64)
    classifier = torchvision.models.regnet_x_3_2gf().eval()
    classifier.load_state_dict(theirs)
    with torch.no_grad():
        expected = classifier.trunk_output(classifier.stem(batch))
        torch.testing.assert_close(model.eval()(batch)[-1], expected)


@pytest.mark.parametrize(
    "row",
    ["yolov3_d53_320_273e_coco", "faster_rcnn_hrnetv2p_w18_1x_coco", "faster_rcnn_r2_101_fpn_2x_coco",
     "faster_rcnn_s50_fpn_syncbn-backbone+head_mstrain-range_1x_coco", "mask_rcnn_r50_fpn_gn_ws-all_2x_coco",
     "detectors_cascade_rcnn_r50_1x_coco", "tridentnet_r50_caffe_1x_coco"],
)  # fmt: skip
def test_own_names_with_a_classifier_behind(tmp_path: Path, row: str) -> None:
    model = models.create(row, weights=None)
    state = {key: value for key, value in model.backbone.state_dict().items() if "num_batches" not in key}  # type: ignore[union-attr]
    old = {**state, "fc.weight": torch.ones(1000, 8), "classifier.bias": torch.ones(1000)}
    torch.save({"state_dict": old}, tmp_path / "classifier.pth")
    again = models.create(row, weights=tmp_path / "classifier.pth")
    found = again.backbone.state_dict()  # type: ignore[union-attr]
    assert not [key for key in state if not torch.equal(found[key], state[key])]


def test_published_backbone_is_looked_up_and_checked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SDK_WEIGHTS_MIRROR", str(tmp_path))
    state = torchvision.models.resnet50().state_dict()
    file = tmp_path / "resnet50.pth"
    torch.save(state, file)
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(FILES, "torchvision://resnet50", f"https://host/resnet50-{digits}.pth")
    with pytest.raises(WeightsError, match=f"has neither resnet50-{digits}.pth"):
        models.create("faster_rcnn_r50_fpn_1x_coco", weights="backbone")
    file.rename(tmp_path / f"resnet50-{digits}.pth")
    model = models.create("faster_rcnn_r50_fpn_1x_coco", weights="backbone")
    assert same(model.backbone, state)  # type: ignore[arg-type]


def test_every_row_knows_where_its_backbone_lies() -> None:
    assert {recipe.backbone_weights for recipe in recipes().values()} - {None} <= FILES.keys()
    assert all(re.search(r"-[0-9a-f]{8}\.pth$", address) for address in FILES.values())


def test_another_network_is_an_error(tmp_path: Path) -> None:
    model = models.create("faster_rcnn_r50_fpn_1x_coco", weights=None)
    recipe = models.find_recipe("faster_rcnn_r50_fpn_1x_coco")
    torch.save(torchvision.models.resnet101().state_dict(), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a.pth: \d+ entries are not of this model: layer3"):
        load_weights(model, recipe, tmp_path / "a.pth")
    torch.save(torchvision.models.resnext50_32x4d().state_dict(), tmp_path / "b.pth")
    with pytest.raises(WeightsError, match=r"b.pth: \d+ entries have another shape: layer1"):
        load_weights(model, recipe, tmp_path / "b.pth")
