"""Every step of every published pipeline has its place in the SDK."""

import json
from dataclasses import replace

import numpy as np
import pytest
from published_steps import LOADING, STEPS, express_test, express_train

from sdk.datasets.masks import BitMasks
from sdk.datasets.sample import Sample
from sdk.datasets.transforms import InstaBoost, OneOf, Resize
from sdk.models.zoo import recipes


@pytest.fixture(scope="module")
def rows(shared):
    return [json.loads(line) for line in (shared / "zoo" / "training.jsonl").read_text().splitlines()]


def test_every_step_has_a_class(rows):
    elsewhere = {"Normalize", "Pad", "SegRescale"}
    names = {step if isinstance(step, str) else step["step"] for row in rows for step in row["train"]}
    assert names == set(STEPS) | LOADING | elsewhere
    assert len(rows) == 390


def test_every_row_normalizes_alike_in_training_and_test(rows):
    for row in rows:
        _, pixels = express_train(row)
        test = express_test(row)
        assert (pixels.mean, pixels.std, pixels.channels) == (test.mean, test.std, test.channels), row["name"]


def test_every_pipeline_runs(rows):
    """Each distinct pipeline once, on an image with two objects and whatever the pipeline reads."""
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    boxes = np.array([[10, 5, 40, 50], [50, 20, 75, 55]], np.float32)
    masks = np.zeros((2, 60, 80), np.uint8)
    masks[0, 5:50, 10:40] = masks[1, 20:55, 50:75] = 1
    seen = set()
    for row in rows:
        transforms, pixels = express_train(row)
        if (transforms, pixels.divisor) in seen:
            continue
        seen.add((transforms, pixels.divisor))
        if any(isinstance(transform, InstaBoost) for transform in transforms):
            pytest.importorskip("instaboostfast")
        sample = Sample(image, boxes, np.arange(2), np.zeros(2, bool), 0, masks=BitMasks(masks))
        if any(isinstance(step, dict) and step["step"] == "LoadProposals" for step in row["train"]):
            sample = Sample(image, boxes, np.arange(2), np.zeros(2, bool), 0, proposals=boxes)
        rng = np.random.default_rng(0)
        for transform in transforms:
            sample = transform(sample, rng)
        assert len(sample.boxes) >= 1, row["name"]
        assert sample.masks is None or sample.masks.size == sample.size
    assert len(seen) > 20


def test_two_sizes_without_a_mode_are_a_range(rows):
    """Cityscapes and YOLOv3 rows name no mode; the published library then draws from a range."""
    drawn = {row["name"]: t.draw for row in rows for t in express_train(row)[0] if isinstance(t, Resize)}
    assert drawn["mask_rcnn_r50_fpn_1x_cityscapes"] == "range"
    assert drawn["yolov3_d53_mstrain-608_273e_coco"] == "range"
    assert drawn["fcos_x101_64x4d_fpn_gn-head_mstrain_640-800_2x_coco"] == "value"


def canonical(transform):
    """Bounds of a ratio-keeping resize have no order; here the long one comes first."""
    if isinstance(transform, OneOf):
        return OneOf(tuple(tuple(map(canonical, policy)) for policy in transform.policies))
    if isinstance(transform, Resize) and transform.keep_ratio:
        return replace(transform, sizes=tuple((max(size), min(size)) for size in transform.sizes))
    return transform


def test_recipes_transform_as_published(rows):
    published = {row["name"]: row for row in rows}
    for name, recipe in recipes().items():
        if name not in published:
            continue
        transforms, _ = express_train(published[name])
        assert tuple(map(canonical, recipe.train_transforms)) == tuple(map(canonical, transforms)), name
        assert recipe.preprocessing == express_test(published[name]), name
