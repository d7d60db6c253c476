from dataclasses import replace

import numpy as np
import pytest
from traced import assert_follows, assert_tight, copied, sources, traced_sample

from sdk.datasets.transforms import Albumentations, Flip

A = pytest.importorskip("albumentations")


def without_proposals(sample):
    return replace(sample, proposals=None)


@pytest.mark.parametrize("seed", range(5))
def test_mirroring_is_ours(seed):
    sample = without_proposals(traced_sample(40, 60, 4, seed, ignored=1))
    theirs = Albumentations(A.Compose([A.HorizontalFlip(p=1)]))(sample, np.random.default_rng(0))
    ours = Flip(1.0)(sample, np.random.default_rng(0))
    for a, b in zip(copied(theirs), copied(ours)):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_crops_drop_and_clip(seed):
    sample = without_proposals(traced_sample(60, 80, 5, seed))
    cropped = Albumentations(A.Compose([A.RandomCrop(30, 25)]))(sample, np.random.default_rng(seed))
    assert cropped.size == (30, 25)
    assert_follows(sample, cropped)
    _, y, x = sources(cropped)
    visible = sample.masks.decode()[:, y[0, 0] : y[0, 0] + 30, x[0, 0] : x[0, 0] + 25].any(axis=(1, 2))
    np.testing.assert_array_equal(cropped.labels, np.flatnonzero(visible))
    rounded = replace(cropped, boxes=cropped.boxes.round())
    np.testing.assert_allclose(rounded.boxes, cropped.boxes, atol=1e-4)
    assert_tight(rounded)


def test_semantic_map_is_unlabelled_outside():
    sample = without_proposals(traced_sample(40, 50, 1))
    moved = A.Compose([A.Affine(translate_px={"x": 7, "y": 4}, p=1)])
    assert_follows(sample, Albumentations(moved)(sample, np.random.default_rng(0)))


def test_thresholds_of_the_given_box_parameters_hold():
    sample = without_proposals(traced_sample(60, 80, 0))
    boxes = np.array([[0, 0, 80, 60], [1, 1, 3, 3]], np.float32)
    sample = replace(sample, boxes=boxes, labels=np.arange(2), ignore=np.zeros(2, bool), masks=None)
    params = A.BboxParams("coco", label_fields=["name"], min_area=100)
    after = Albumentations(A.Compose([A.HorizontalFlip(p=1)], bbox_params=params))(sample, np.random.default_rng(0))
    assert after.labels.tolist() == [0]


def test_published_policy():
    """Boxes follow masks through its shifts, and each of its steps happens now and then."""
    changed = moved = 0
    for seed in range(60):
        sample = without_proposals(traced_sample(64, 64, 3, seed))
        after = Albumentations.published()(sample, np.random.default_rng(seed))
        rounded = replace(after, boxes=after.boxes.round())
        np.testing.assert_allclose(rounded.boxes, after.boxes, atol=1e-3)
        assert_tight(rounded)
        assert after.size == sample.size
        changed += not np.array_equal(after.image, sample.image)
        moved += not np.array_equal(after.masks.decode(), sample.masks.decode()[after.labels])
    # A shift every other time; 0.5 * 0.8 * 0.9 * 0.8 * 0.9 * 0.9 of the images are left as they are.
    assert 20 <= moved <= 40
    assert 36 <= changed <= 52


def test_same_seed_same_sample_and_the_input_is_left_alone():
    sample = without_proposals(traced_sample(40, 50, 3))
    before = copied(sample)
    transform = Albumentations(A.Compose([A.Affine(rotate=(-30, 30), p=1), A.RandomBrightnessContrast(p=0.5)]))
    once, again = (transform(sample, np.random.default_rng(5)) for _ in range(2))
    other = transform(sample, np.random.default_rng(6))
    for a, b in zip(copied(once), copied(again)):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(before, copied(sample)):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(once.image, other.image)


@pytest.mark.parametrize("size", [(1, 1), (40, 50)])
def test_samples_without_objects(size):
    sample = without_proposals(traced_sample(*size, 0))
    after = Albumentations.published()(sample, np.random.default_rng(1))
    assert after.boxes.shape == (0, 4)
    assert after.masks.decode().shape == (0, *size)


def test_objects_lost_altogether():
    sample = without_proposals(traced_sample(40, 50, 2))
    after = Albumentations(A.Compose([A.Affine(translate_px=300, p=1)]))(sample, np.random.default_rng(0))
    assert after.boxes.shape == (0, 4)
    assert after.masks.decode().shape == (0, 40, 50)
    assert (after.semantic == 255).all()


def test_boxes_without_area_are_dropped():
    sample = without_proposals(traced_sample(40, 50, 2))
    boxes = np.array([[5, 5, 5, 9], [-3, 2, 60, 9]], np.float32)
    sample = replace(sample, boxes=boxes, masks=None)
    after = Albumentations(A.Compose([A.HorizontalFlip(p=1)]))(sample, np.random.default_rng(0))
    assert after.labels.tolist() == [1]
    np.testing.assert_allclose(after.boxes, [[0, 2, 50, 9]], atol=1e-4)


def test_an_empty_composition_does_nothing():
    sample = without_proposals(traced_sample(20, 30, 2))
    for seed in range(10):
        after = Albumentations(A.Compose([]))(sample, np.random.default_rng(seed))
        np.testing.assert_array_equal(after.image, sample.image)


def test_what_cannot_be_done_is_said():
    sample = traced_sample(10, 10, 1)
    with pytest.raises(ValueError, match="has proposals"):
        Albumentations()(sample, np.random.default_rng(0))
    normalize = A.Compose([A.Normalize()])
    with pytest.raises(ValueError, match=r"expected an image \(H, W, 3\) of uint8.*float32"):
        Albumentations(normalize)(without_proposals(sample), np.random.default_rng(0))
