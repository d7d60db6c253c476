"""Every published name is a recipe whose detector has the published state."""

import gzip
import json

import pytest
import torch

from sdk import models
from sdk.models.zoo import recipes


@pytest.fixture(scope="module")
def zoo(shared):
    return shared / "zoo"


def published_keys(shared, name):
    """Name and shape of every entry of the published state dict."""
    folder = shared / "parity"
    same = json.loads((folder / "same_keys.json").read_text())
    while not (file := folder / "keys" / f"{name}.json.gz").exists():
        name = same[name]
    return {key: tuple(shape) for key, shape, *_ in json.loads(gzip.decompress(file.read_bytes()))}


def test_every_published_name_is_a_recipe(zoo):
    names = json.loads((zoo / "rows.json").read_text())["names"]
    assert len(names) == 390
    assert not set(names) - set(models.names())


def test_every_detector_has_the_published_state(shared, zoo):
    """On the meta device: names and shapes, nothing is computed."""
    wrong = {}
    for name in json.loads((zoo / "rows.json").read_text())["names"]:
        with torch.device("meta"):
            model = models.create(name, weights=None)
        ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        theirs = published_keys(shared, name)
        if ours != theirs:
            wrong[name] = sorted(ours.items() ^ theirs.items())[:4]
    assert not wrong


@pytest.mark.parametrize("name", ["faster_rcnn_r50_fpn_1x_coco", "retinanet_r50_fpn_1x_coco"])
def test_a_class_count_sizes_the_head(name):
    with torch.device("meta"):
        model = models.create(name, num_classes=7, weights=None)
    assert model.num_classes == 7


def test_an_unknown_name_names_the_closest():
    with pytest.raises(ValueError, match="faster_rcnn_r50_fpn_1x_coco"):
        models.create("faster_rcnn_r50_fpn_1x_koko", weights=None)


def test_every_checkpoint_says_its_hash():
    for recipe in recipes().values():
        if recipe.weights is not None:
            prefix = recipe.sha256_prefix
            assert prefix is not None
            assert len(prefix) == 8
            assert not set(prefix) - set("0123456789abcdef")
