"""Another size of the images, and other transforms, than the recipe's."""

from __future__ import annotations

import numpy as np
import pytest

import sdk
from sdk import cli, models
from sdk.datasets import Shapes
from sdk.datasets.transforms import Flip, Resize
from sdk.errors import RunError
from sdk.training.augmentation import with_images
from sdk.training.options import Options

NAMES = (
    "faster_rcnn_r50_fpn_1x_coco",
    "faster_rcnn_r50_caffe_fpn_mstrain_3x_coco",
    "detr_r50_8x2_150e_coco",
    "ssd300_coco",
    "yolov3_d53_mstrain-608_273e_coco",
    "retinanet_r50_fpn_crop640_50e_coco",
    "retinanet_tiny_shapes",
)


def largest(recipe, count: int = 12) -> tuple[int, int]:
    """Longest and shortest edge of any of some images after the recipe's transforms."""
    shapes, edges = Shapes(count, size=(480, 640)), []
    for index in range(count):
        sample, rng = shapes[index], np.random.default_rng(index)
        for transform in recipe.train_transforms:
            sample = transform(sample, rng)
        edges += sample.size
    return max(edges), min(edges)


@pytest.mark.parametrize("name", NAMES)
def test_images_of_every_kind_of_recipe_become_as_large_as_asked(name):
    recipe = models.find_recipe(name)
    for size in (128, 256):
        resized = with_images(recipe, size, "recipe")
        assert resized.preprocessing.size == (size, size)
        longest, _ = largest(resized)
        # But for the range of scales that the recipe draws from.
        assert longest == pytest.approx(size, rel=0.25)
        assert max(resized.preprocessing.resized_size((480, 640))) == size


def test_two_edges_are_bounds_or_exact_as_the_recipe_has_them():
    kept = with_images(models.find_recipe("faster_rcnn_r50_fpn_1x_coco"), (400, 600), "recipe")
    assert kept.preprocessing.size == (600, 400)
    assert kept.train_transforms == (Resize(((600, 400),)), Flip())
    exact = with_images(models.find_recipe("ssd300_coco"), (400, 200), "none")
    assert exact.train_transforms == (Resize(((400, 200),), keep_ratio=False),)
    with pytest.raises(ValueError, match=r"image_size: cornernet.* takes images at their own size"):
        with_images(models.find_recipe("cornernet_hourglass104_mstest_8x6_210e_coco"), 512, "recipe")


@pytest.mark.parametrize("name", ["none", "light", "strong"])
def test_named_transforms_end_at_the_test_size(name):
    recipe = with_images(models.find_recipe("faster_rcnn_r50_fpn_1x_coco"), 320, name)
    assert largest(recipe) == (320, 240) if name != "strong" else largest(recipe)[0] == 320
    kinds = [type(transform).__name__ for transform in recipe.train_transforms]
    assert ("Flip" in kinds, "PhotometricDistortion" in kinds) == (name != "none", name == "strong")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"image_size": 16}, "image_size: expected an edge of 32 pixels or more, or two, found 16"),
        ({"image_size": (640, 0)}, "image_size: expected an edge"),
        ({"image_size": True}, "image_size: expected an edge"),
        ({"image_size": 1.5}, "image_size: expected an edge"),
        ({"image_size": "64o"}, "image_size: expected an edge, or two as 1333x800, found '64o'"),
        ({"transforms": "stong"}, r"transforms: expected one of recipe, .*found 'stong' \(did you mean strong\?\)"),
        ({"transforms": [Flip]}, r"transforms\[0\]: expected a transform such as Flip\(\)"),
        ({"transforms": 3}, "transforms: expected a list or one of recipe, light, strong, none, found 3"),
    ],
)
def test_what_cannot_be_is_said(shapes, tiny, given, told):
    with pytest.raises(ValueError, match=told):
        sdk.fit(shapes, tiny(), **given)


def test_a_run_is_trained_and_used_at_the_size(tmp_path, shapes, tiny):
    assert Options(image_size="640x480").image_size == (640, 480)
    options = {"epochs": 1, "workers": 0, "out": tmp_path / "run"}
    run = sdk.fit(shapes, tiny(), image_size=96, transforms=[Resize(((96, 96),)), Flip()], **options)
    assert sdk.Run(run.folder, model=tiny()).recipe.preprocessing.size == (96, 96)
    assert run.manifest["recipe"]["preprocessing"]["size"] == [96, 96]
    assert run.manifest["given"]["image_size"] == 96
    assert [transform["type"] for transform in run.manifest["given"]["transforms"]["object"]] == ["Resize", "Flip"]
    with pytest.raises(RunError, match="its recipe differs"):
        sdk.fit(shapes, tiny(), image_size=64, resume="auto", **options)


def test_the_shell_says_the_same(tmp_path, monkeypatch):
    said = {}
    monkeypatch.setattr("sdk.verbs.fit.fit", lambda dataset, model, **given: said.update(given))
    monkeypatch.setattr(sdk, "fit", lambda dataset, model, **given: said.update(given), raising=False)
    flags = ["--image-size", "640x480", "--transforms", "strong", "--freeze", "backbone,neck", "--warmup", "3"]
    assert cli.main(["fit", "shapes", "retinanet_tiny_shapes", *flags]) == 0
    assert said == {"image_size": (640, 480), "transforms": "strong", "freeze": ("backbone", "neck"), "warmup": 3}
