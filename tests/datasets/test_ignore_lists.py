import json

import numpy as np
import pytest

from sdk.datasets import Coco, DatasetError, DetectionDataset, WiderFace, concat, ignoring, subset
from sdk.datasets.ignore_lists import Ignoring


@pytest.fixture
def dataset(shared) -> Coco:
    root = shared / "data/coco_val2014_100"
    return Coco(annotations=root / "annotations/instances_val2014_54.json", images=root / "val2014")


def test_images_are_left_out_and_objects_ignored(dataset, tmp_path):
    columns = dataset.annotations
    crowded = [i for i in range(len(dataset)) if len(dataset.info(i).labels) > 3]
    gone, touched = crowded[0], crowded[1]
    listed = columns.annotation_ids[columns.rows(touched)][:2].tolist()
    inside = columns.annotation_ids[columns.rows(gone)][:1].tolist()
    file = tmp_path / "ignore.json"
    file.write_text(json.dumps({"images": [columns.image_ids[gone].item()], "annotations": listed + inside}))
    fewer = ignoring(dataset, file)
    assert isinstance(fewer, DetectionDataset)
    assert len(fewer) == len(dataset) - 1
    place = touched - (gone < touched)
    before, after = dataset[touched], fewer[place]
    assert after.image_id == before.image_id
    np.testing.assert_array_equal(after.boxes, before.boxes)
    ids = columns.annotation_ids[columns.rows(touched)][columns.usable[columns.rows(touched)]]
    np.testing.assert_array_equal(after.ignore, before.ignore | np.isin(ids, listed))
    assert len(fewer.info(place).labels) == len(dataset.info(touched).labels) - 2
    assert fewer.fingerprint != dataset.fingerprint
    report = fewer.evaluator().compute()
    whole = dataset.evaluator().compute()
    assert report.counts.images == whole.counts.images - 1
    kept = columns.image_of() != gone
    assert report.counts.ignored == (columns.ignore[kept] | np.isin(columns.annotation_ids[kept], listed)).sum()


def test_samples_and_columns_agree(dataset):
    """On every image, also those with objects that samples leave out."""
    ids = dataset.annotations.annotation_ids[::3].tolist()
    fewer = Ignoring(dataset, ids)
    for i in range(len(dataset)):
        sample, rows = fewer[i], fewer.annotations.rows(i)
        np.testing.assert_array_equal(sample.ignore, fewer.annotations.ignore[rows][fewer.annotations.usable[rows]])
        np.testing.assert_array_equal(sample.labels[~sample.ignore], fewer.info(i).labels)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[]", "not an ignore list"),
        ('{"images": [1]}', "annotations"),
        ('{"images": [1.5], "annotations": []}', "images"),
        ("{", "not a JSON file"),
        ('{"images": [-5], "annotations": []}', "-5"),
        ('{"images": [], "annotations": [-7]}', "-7"),
        (None, "cannot be read"),
    ],
)
def test_wrong_lists(dataset, tmp_path, content, problem):
    file = tmp_path / "ignore.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(DatasetError, match=problem):
        ignoring(dataset, file)


def test_ids_that_mean_several_objects(dataset):
    twice = concat(dataset, dataset)
    assert len(Ignoring(twice, [])) == len(twice)
    with pytest.raises(DatasetError, match="not unique"):
        Ignoring(twice, dataset.annotations.annotation_ids[:1].tolist())


def test_sets_of_wider_face_stay_known(shared):
    dataset = WiderFace(shared / "data/wider_face", split="val_24")
    report = Ignoring(subset(dataset, range(5)), []).evaluator().compute()
    assert report.counts.images == 5
