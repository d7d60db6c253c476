"""Datasets that go through a real FiftyOne database and come back."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from roundtrip import assert_same

from sdk.datasets import Shapes, from_fiftyone, to_fiftyone
from sdk.datasets.index import columns_of
from sdk.datasets.masks import decode
from sdk.errors import SdkError

pytestmark = pytest.mark.fiftyone


@pytest.mark.parametrize("name", ["coco", "bccd"])
def test_nothing_is_lost_on_the_way(fo, name, request):
    dataset = request.getfixturevalue(name)
    made = to_fiftyone(dataset)
    assert_same(dataset, from_fiftyone(made))


def test_images_without_files(fo):
    shapes = Shapes(6, size=(48, 64))
    back = from_fiftyone(to_fiftyone(shapes))
    for i in range(len(shapes)):
        np.testing.assert_array_equal(back[i].image, shapes[i].image)
    assert_same(shapes, back)


def test_the_mask_is_where_the_app_draws_it(fo):
    shapes = Shapes(3, size=(48, 64))
    made = to_fiftyone(shapes)
    for i, sample in enumerate(made):
        drawn = sample.ground_truth.to_segmentation(frame_size=(64, 48), mask_targets=None).mask > 0
        np.testing.assert_array_equal(drawn, shapes[i].masks.decode().any(axis=0))


def test_opening_again_is_quick_and_keeps_tags(fo, coco):
    made = to_fiftyone(coco)
    sample = made.first()
    sample.tags.append("look")
    sample.save()
    start = time.perf_counter()
    again = to_fiftyone(coco)
    assert time.perf_counter() - start < 5
    assert again.name == made.name
    assert again.count_sample_tags() == {"look": 1}
    assert len(again) == len(coco)


def test_a_name_of_other_data_is_refused(fo, coco, bccd):
    made = to_fiftyone(coco)
    with pytest.raises(SdkError, match=made.name):
        to_fiftyone(bccd, made.name)


def test_edits_come_back(fo):
    shapes = Shapes(4, size=(48, 64), seed=5)
    made = to_fiftyone(shapes, "edited")
    sample = made.first()
    kept = sample.ground_truth.detections[1:]
    kept[0].label = "something new"
    added = fo.Detection(label=shapes.classes[0], bounding_box=[0.25, 0.25, 0.5, 0.5])
    sample.ground_truth.detections = [*kept, added]
    sample.tags.append("fixed")
    sample.save()
    back = from_fiftyone(made.match_tags("fixed"))
    columns = columns_of(back)
    assert len(back) == 1
    assert len(columns) == len(kept) + 1
    assert back.classes == (*shapes.classes, "something new")
    assert back.classes[columns.labels[0]] == "something new"
    assert columns.boxes[-1].tolist() == [16, 12, 48, 36]
    ids = columns.annotation_ids.tolist()
    assert ids[-1] not in columns_of(shapes).annotation_ids
    assert all(a != b for a, b in pairwise(ids))


def test_moved_box_stretches_its_mask(fo):
    shapes = Shapes(1, size=(48, 64), seed=7)
    made = to_fiftyone(shapes, "moved")
    sample = made.first()
    sample.ground_truth.detections[0].bounding_box = [0, 0, 0.5, 0.5]
    sample.save()
    columns = columns_of(from_fiftyone(made))
    mask = decode(columns.segmentation(0))
    assert columns.boxes[0].tolist() == [0, 0, 32, 24]
    assert mask[:24, :32].any()
    assert not mask[24:].any()
    assert not mask[:, 32:].any()
