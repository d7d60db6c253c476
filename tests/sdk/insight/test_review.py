"""Annotations that are probably wrong, and what two versions say differently."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import sdk
from sdk.datasets import Shapes, amended
from sdk.datasets.amending import Amendments, Change
from sdk.errors import SdkError
from sdk.evaluators.label_faults import Objects, label_faults, moved_images, swapped_classes
from sdk.insight.review import Review, Suspect
from sdk.models.structures import Detections


@pytest.fixture(scope="module")
def shapes():
    made = Shapes(40, size=(128, 128), max_objects=6)
    return sdk.datasets.subset(made, range(40))


def seen(dataset, seed: int = 0) -> list[Detections]:
    """What a good detector finds: every object, somewhat off."""
    rng, found = np.random.default_rng(seed), []
    columns = dataset.annotations
    for image in range(len(dataset)):
        rows = columns.rows(image)
        boxes = columns.boxes[rows] + rng.normal(0, 0.4, (rows.stop - rows.start, 4))
        scores = np.sort(rng.uniform(0.7, 1, len(boxes)))[::-1].copy()
        values = (torch.from_numpy(boxes).float(), torch.from_numpy(scores).float())
        found.append(Detections(*values, torch.from_numpy(columns.labels[rows].copy())))
    return found


def spoilt(dataset, *changes: Change):
    return amended(dataset, Amendments(dataset.fingerprint, changes))


def test_planted_faults_lead_the_ranking(shapes):
    columns = shapes.annotations
    ids, boxes, image = columns.annotation_ids.tolist(), columns.boxes, columns.image_ids[columns.image_of()].tolist()
    sizes = boxes[:, 2:] - boxes[:, :2]
    rows = np.argsort(-sizes.min(1))[:40:8].tolist()
    other = shapes.classes[(columns.labels[rows[0]] + 1) % len(shapes.classes)]
    shifted = boxes[rows[1]] + np.tile(sizes[rows[1]] * [0.3, 0], 2)
    bad = spoilt(
        shapes,
        Change("relabel", annotation_id=ids[rows[0]], class_name=other),
        Change("move", annotation_id=ids[rows[1]], box=tuple(shifted), mask="drop"),
        Change("remove", annotation_id=ids[rows[2]]),
        Change("add", image_id=image[rows[3]], annotation_id=9001, class_name=other, box=tuple(boxes[rows[3]] + 0.3)),
    )
    review = sdk.review(bad, seen(shapes))
    best = {kind: next(s for s in review.suspects if s.kind == kind) for kind in ("class", "box", "missing")}
    assert best["class"].annotation_id == ids[rows[0]]
    assert best["class"].suggestion == shapes.classes[columns.labels[rows[0]]]
    assert best["box"].annotation_id == ids[rows[1]]
    assert np.allclose(best["box"].suggestion, boxes[rows[1]], atol=3)
    assert best["missing"].image_id == image[rows[2]]
    assert best["missing"].suggestion == "add"
    assert {kind: suspect.probability for kind, suspect in best.items() if suspect.probability <= 0.4} == {}
    assert all(0 <= s.probability <= 1 for s in review.suspects)
    assert [s.probability for s in review.suspects] == sorted((s.probability for s in review.suspects), reverse=True)


def test_what_is_right_is_hardly_suspected(shapes):
    assert not [s for s in sdk.review(shapes, seen(shapes)).suspects if s.probability > 0.5]


def test_accepted_suggestions_bring_the_annotations_back(shapes, tmp_path):
    annotation = shapes.annotations.annotation_ids[0].item()
    right = shapes.classes[shapes.annotations.labels[0]]
    other = next(name for name in shapes.classes if name != right)
    bad = spoilt(shapes, Change("relabel", annotation_id=annotation, class_name=other))
    review = sdk.review(bad, seen(shapes), out=tmp_path)
    [wrong] = [s for s in review.suspects if s.annotation_id == annotation]
    review.accept(wrong)
    review.reject([s for s in review.suspects if s is not wrong])
    file = review.amendments(author="me").save(tmp_path / "fixes.json")
    assert len(sdk.diff(shapes, bad.amended(file))) == 0
    read = sdk.Review.read(tmp_path / "queue.csv")
    assert read.to_dict()["fingerprint"] == bad.fingerprint
    assert len(read) == len(review)
    assert not read.accepted


def test_decisions_are_read_from_an_edited_queue(shapes, tmp_path):
    review = sdk.review(shapes, [d[:-1] for d in seen(spoilt(shapes))])
    queue = review.save(tmp_path / "queue.csv")
    lines = queue.read_text().splitlines()
    queue.write_text("\n".join([*lines[:2], lines[2].replace(",,", ",accept,", 1), *lines[3:]]) + "\n")
    assert [s.number for s in sdk.Review.read(queue).accepted] == [1]
    queue.write_text("\n".join([*lines[:2], lines[2].replace(",,", ",maybe,", 1)]))
    with pytest.raises(SdkError, match=r"line 3: decision.*maybe"):
        sdk.Review.read(queue)
    with pytest.raises(SdkError, match="no suspect"):
        review.accept(10**6)


def objects(dataset, found) -> tuple[Objects, Objects]:
    columns = dataset.annotations
    truth = Objects(columns.image_of(), columns.boxes, columns.labels, np.ones(len(columns)), columns.ignore)
    images = np.repeat(np.arange(len(found)), [len(one.scores) for one in found])
    boxes, labels, scores = (
        np.concatenate([getattr(one, name).numpy() for one in found]) for name in ("boxes", "labels", "scores")
    )
    return truth, Objects(images, boxes.astype(float), labels, scores, np.zeros(len(images), bool))


def test_swapped_names_are_one_fault(shapes):
    a, b = shapes.classes[:2]
    swap = [Change("rename_class", class_name=x, to=y) for x, y in ((a, "?"), (b, a), ("?", b))]
    truth, found = objects(shapes, seen(shapes))
    assert swapped_classes(truth, found, len(shapes.classes)) == []
    labels = np.where(truth.labels == 0, 1, np.where(truth.labels == 1, 0, truth.labels))
    [(x, y, share)] = swapped_classes(replace(truth, labels=labels), found, len(shapes.classes))
    assert (x, y) == (0, 1)
    assert share > 0.9
    relabelled = spoilt(
        shapes,
        *[
            Change("relabel", annotation_id=i, class_name=shapes.classes[k])
            for i, k in zip(shapes.annotations.annotation_ids.tolist(), labels.tolist(), strict=True)
        ],
    )
    review = sdk.review(relabelled, seen(shapes))
    assert [s.kind for s in review.systematic] == ["swapped classes"]
    assert not [s for s in review.suspects if s.kind == "class" and s.probability > 0.5]
    review.accept(review.systematic)
    back = amended(relabelled, review.amendments())
    names = [np.array(d.classes)[d.annotations.labels].tolist() for d in (back, shapes)]
    assert names[0] == names[1]
    assert len(swap) == len(review.amendments().changes)


@pytest.mark.parametrize(("scale", "shift"), [((1, 1), (25, -18)), ((0.6, 0.6), (0, 0))])
def test_images_whose_boxes_all_moved_are_one_fault(shapes, scale, shift):
    counts = np.diff(shapes.annotations.image_offsets)
    image = int(counts.argmax())
    image_id = shapes.annotations.image_ids[image].item()
    bad = spoilt(shapes, Change("transform", image_id=image_id, scale=scale, shift=shift))
    truth, found = objects(bad, seen(shapes))
    [moved] = moved_images(truth, found)
    assert moved.image == image
    assert moved.after > 0.6
    assert np.allclose(np.array(moved.scale) * scale, 1, atol=0.1)
    assert moved_images(*objects(shapes, seen(shapes))) == []


def test_nothing_found_and_nothing_annotated(shapes):
    nothing = Objects(np.zeros(0, int), np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), np.zeros(0, bool))
    truth, found = objects(shapes, seen(shapes))
    assert label_faults(truth, nothing, 4).probability.max() < 0.5
    assert len(label_faults(nothing, found, 4).missing) == len(found)
    assert label_faults(nothing, nothing, 4).probability.shape == (5, 0)


def test_folds_judge_what_they_did_not_see(tiny, shapes, tmp_path):
    few = sdk.datasets.subset(shapes, range(6))
    model = tiny()
    review = sdk.review(few, model, folds=2, training={"epochs": 1, "batch_size": 2}, workers=0, out=tmp_path)
    assert "never saw" in review.notes[0]
    manifests = [sdk.Run(tmp_path / f"fold_{n}", model=tiny()).manifest for n in (1, 2)]
    assert [m["dataset"]["images"] for m in manifests] == [3, 3]
    with pytest.raises(SdkError, match="folds"):
        sdk.review(few, model, folds=7)


def test_differences_lead_from_one_version_to_the_other(shapes):
    ids = shapes.annotations.annotation_ids.tolist()
    image = shapes.annotations.image_ids[0].item()
    x1, y1, x2, y2 = shapes.annotations.boxes[0].tolist()
    other = next(name for name in shapes.classes if name != shapes.classes[shapes.annotations.labels[1]])
    later = spoilt(
        shapes,
        Change("move", annotation_id=ids[0], box=(x1 + 1, y1, x2 + 1, y2), mask="fit"),
        Change("relabel", annotation_id=ids[1], class_name=other),
        Change("remove", annotation_id=ids[2]),
        Change("add", image_id=image, class_name=other, box=(0, 0, 7, 7)),
    )
    found = sdk.diff(shapes, later)
    assert sorted(row.kind for row in found.rows) == ["added", "moved", "relabelled", "removed"]
    assert sum(sum(kinds.values()) for kinds in found.by_class().values()) == 4
    again = amended(shapes, found.amendments())
    assert len(sdk.diff(again, later)) == 0
    assert str(sdk.diff(shapes, shapes)) == "the annotations are the same"
    part = sdk.diff(shapes, sdk.datasets.subset(shapes, range(3)))
    assert len(part.only_first) == len(shapes) - 3
    with pytest.raises(SdkError, match="different images"):
        part.amendments()


def test_of_two_accepted_ways_the_likelier_is_done():
    at = {"image_id": 1, "annotation_id": 7, "class_name": "cat", "box": (0.0, 0.0, 5.0, 5.0)}
    remove = Suspect(1, "spurious", 0.6, suggestion="remove", **at)
    relabel = Suspect(2, "class", 0.5, suggestion="dog", **at)
    move = Suspect(3, "box", 0.4, suggestion=(1.0, 1.0, 5.0, 5.0), **at)
    review = Review("f", [remove, relabel, move])
    review.accept([1, 2, 3])
    assert [change.operation for change in review.amendments().changes] == ["remove"]
    review.reject(1)
    assert [change.operation for change in review.amendments().changes] == ["relabel", "move"]
