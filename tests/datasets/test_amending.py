"""Changes of annotations as files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from coco_files import tiny_coco, write_coco

from sdk.datasets import Coco, DatasetError, Shapes, amended, subset
from sdk.datasets.amending import Amendments, Change, read_amendments


@pytest.fixture
def dataset(tmp_path):
    write_coco(tmp_path / "data", tiny_coco())
    return Coco(tmp_path / "data")


def boxes_by_id(dataset):
    columns = dataset.annotations
    return dict(zip(columns.annotation_ids.tolist(), columns.boxes.tolist(), strict=True))


def changed(dataset, *changes: Change):
    return dataset.amended(Amendments(dataset.fingerprint, changes))


def test_a_file_is_read_as_it_was_written(dataset, tmp_path):
    first, image = dataset.annotations.annotation_ids[0].item(), dataset.annotations.image_ids[0].item()
    changes = (
        Change("relabel", annotation_id=first, class_name=dataset.classes[-1], author="a", time="2026", reason="<b>"),
        Change("add", image_id=image, class_name=dataset.classes[0], box=(1.0, 2.0, 5.0, 6.0)),
    )
    file = Amendments(dataset.fingerprint, changes).save(tmp_path / "fixes.json")
    read = read_amendments(file)
    assert read.fingerprint == dataset.fingerprint
    assert read.changes[0] == changes[0]
    assert read.changes[1].author
    assert read.changes[1].time
    with pytest.raises(FileExistsError):
        Amendments(dataset.fingerprint, changes).save(file)


def test_each_operation_does_what_it_says_and_nothing_else(dataset):
    columns = dataset.annotations
    ids = columns.annotation_ids.tolist()
    image = columns.image_ids[0].item()
    before = boxes_by_id(dataset)
    fingerprint = dataset.fingerprint
    result = changed(
        dataset,
        Change("remove", annotation_id=ids[0]),
        Change("move", annotation_id=ids[1], box=(2, 3, 14, 13), mask="drop"),
        Change("ignore", annotation_id=ids[2]),
        Change("add", image_id=image, annotation_id=900, class_name=dataset.classes[0], box=(1, 1, 9, 8)),
    )
    expected = {**before, ids[1]: [2, 3, 14, 13], 900: [1, 1, 9, 8]}
    del expected[ids[0]]
    assert boxes_by_id(result) == expected
    place = result.annotations.annotation_ids.tolist().index(ids[2])
    assert result.annotations.ignore[place]
    assert result.annotations.stated_boxes[result.annotations.annotation_ids.tolist().index(900)].tolist() == [
        1,
        1,
        8,
        7,
    ]
    assert boxes_by_id(dataset) == before
    assert dataset.fingerprint == fingerprint
    assert result.fingerprint != fingerprint
    assert result.amendments[0]["changes"] == 4
    assert len(result[0].boxes) == len(result.info(0).labels) + int(result[0].ignore.sum())


def test_changes_apply_in_their_order(dataset):
    first, second = dataset.classes[:2]
    annotation = dataset.annotations.annotation_ids[dataset.annotations.labels == 0][0].item()
    renamed = changed(
        dataset,
        Change("rename_class", class_name=first, to="new"),
        Change("relabel", annotation_id=annotation, class_name="new"),
        Change("merge_class", class_name="new", to=second),
    )
    assert renamed.classes == dataset.classes[1:]
    assert renamed.category_ids == dataset.category_ids[1:]
    old = np.array(dataset.classes)[dataset.annotations.labels]
    now = np.array(renamed.classes)[renamed.annotations.labels]
    assert now.tolist() == np.where(old == first, second, old).tolist()
    with pytest.raises(DatasetError, match="no such class"):
        changed(
            dataset,
            Change("rename_class", class_name=first, to="new"),
            Change("merge_class", class_name=first, to=second),
        )


def test_no_change_leaves_everything(dataset):
    ids = dataset.annotations.annotation_ids.tolist()
    label = dataset.annotations.labels[0]
    same = changed(dataset, Change("relabel", annotation_id=ids[0], class_name=dataset.classes[label]))
    assert same.fingerprint == dataset.fingerprint


def test_masks_follow_their_boxes_or_the_change_is_refused(dataset):
    columns = dataset.annotations
    row = next(r for r in range(len(columns)) if columns.segments is not None and columns.segments.kind(r))
    box = columns.boxes[row]
    target = tuple((box / 2).tolist())
    change = Change("move", annotation_id=columns.annotation_ids[row].item(), box=target)
    with pytest.raises(DatasetError, match="mask"):
        changed(dataset, change)
    result = changed(dataset, replace(change, mask="fit"))
    assert result.annotations.areas[row] == pytest.approx(columns.areas[row] / 4)
    dropped = changed(dataset, replace(change, mask="drop"))
    assert dropped.annotations.segments.kind(row) == 0


def test_another_fingerprint_is_an_error(dataset):
    other = Amendments("0" * 64, ())
    with pytest.raises(DatasetError, match="other annotations"):
        dataset.amended(other)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (Change("paint", annotation_id=1), "operation"),
        (Change("relabel", annotation_id=1), "class"),
        (Change("remove", annotation_id="none"), "no such annotation"),
        (Change("add", image_id="none", class_name="x", box=(0, 0, 1, 1)), "no such image"),
        (Change("move", annotation_id=1, box=(5, 5, 1, 1)), "not a box"),
        (Change("transform", image_id=1, scale=(0, 1), shift=(0, 0)), "scale"),
    ],
)
def test_changes_that_cannot_be_applied_are_named(dataset, change, what):
    with pytest.raises(DatasetError, match=what) as caught:
        changed(dataset, change)
    assert "changes[0]" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ([], "amendments"),
        ({"format": "sdk amendments", "version": 2}, "version"),
        ({"format": "sdk amendments", "version": 1, "changes": []}, "fingerprint"),
        ({"format": "sdk amendments", "version": 1, "fingerprint": "", "changes": [{"id": 3}]}, "id"),
    ],
)  # fmt: skip
def test_files_that_are_none_are_named(tmp_path, content, what):
    file = tmp_path / "fixes.json"
    file.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=what) as caught:
        read_amendments(file)
    assert str(file) in str(caught.value)


def test_any_dataset_can_be_amended():
    shapes = Shapes(4, size=(64, 64))
    part = subset(shapes, [2, 1])
    annotation = part.annotations.annotation_ids[0].item()
    for dataset in (shapes, part):
        ids = dataset.annotations.annotation_ids.tolist()
        result = amended(dataset, Amendments(dataset.fingerprint, (Change("remove", annotation_id=annotation),)))
        assert result.annotations.annotation_ids.tolist() == [i for i in ids if i != annotation]
        assert sum(len(result[i].boxes) for i in range(len(result))) == len(ids) - 1
        assert type(result.evaluator()) is type(dataset.evaluator())


def test_the_split_that_changes_fit_is_amended(shared, tmp_path):
    from sdk.datasets import Voc

    cells = Voc(shared / "data" / "bccd")
    annotation = cells.test.annotations.annotation_ids[0].item()
    file = Amendments(cells.test.fingerprint, (Change("remove", annotation_id=annotation),)).save(tmp_path / "f.json")
    result = cells.amended(file)
    assert len(result.test.annotations) == len(cells.test.annotations) - 1
    assert result.fingerprint == cells.fingerprint
    assert result.train is result
    assert result.test.annotations.box_format == "voc"
