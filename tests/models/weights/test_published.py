"""The way from a name to published weights."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdk import models
from sdk.models.weights import WeightsError, load_weights
from sdk.models.zoo import recipes

NAME = "retinanet_tiny_shapes"


def test_published_weights_from_an_offline_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SDK_WEIGHTS_MIRROR", str(tmp_path))
    stored = models.create(NAME, weights=None)
    torch.save({"state_dict": stored.state_dict(), "meta": {}}, tmp_path / "a.pth")
    digits = hashlib.sha256((tmp_path / "a.pth").read_bytes()).hexdigest()[:8]
    (tmp_path / "a.pth").rename(tmp_path / f"a-{digits}.pth")
    recipe = replace(models.find_recipe(NAME), weights=f"https://host/a-{digits}.pth")
    model = models.create(NAME, weights=None)
    load_weights(model, recipe, "published")
    assert all(torch.equal(value, stored.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_file_with_other_digits_is_never_parsed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SDK_WEIGHTS_MIRROR", str(tmp_path))
    monkeypatch.setattr("sdk.models.weights.read", lambda file: pytest.fail("parsed"))
    (tmp_path / "a-00000000.pth").write_bytes(b"anything")
    recipe = replace(models.find_recipe(NAME), weights="https://host/a-00000000.pth")
    with pytest.raises(WeightsError, match="instead of 00000000"):
        load_weights(models.create(NAME, weights=None), recipe, "published")


def test_rows_without_weights_say_so() -> None:
    with pytest.raises(WeightsError, match="no weights were published"):
        models.create(NAME)
    with pytest.raises(WeightsError, match="without a pretrained backbone"):
        models.create(NAME, weights="backbone")


def test_every_address_names_its_digits() -> None:
    for recipe in recipes().values():
        if recipe.weights is not None:
            assert recipe.sha256_prefix is not None
            assert len(recipe.sha256_prefix) == 8
            assert int(recipe.sha256_prefix, 16) >= 0
