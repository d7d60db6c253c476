"""The COCO protocol against pycocotools."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from oracles import COCO_FIGURES, dataset_of, official_coco

from sdk.datasets.errors import DatasetError
from sdk.evaluators.base import Evaluator
from sdk.evaluators.coco import CocoEvaluator
from sdk.models.structures import Detections

AP = {"bbox": 0.5045806987249628, "segm": 0.3195452758576433}


@pytest.fixture(scope="module")
def content(shared):
    return json.loads((shared / "data/coco_val2014_100/annotations/instances_val2014_100.json").read_text())


@pytest.fixture(scope="module")
def results(shared):
    folder = shared / "data/coco_val2014_100/results"
    return {kind: folder / f"instances_val2014_fake{kind}100_results.json" for kind in ("bbox", "segm")}


def as_detections(content, entries) -> tuple[list[int], list[Detections]]:
    """The entries of a results file as a detector would give them."""
    labels = {c["id"]: i for i, c in enumerate(content["categories"])}
    sizes = {i["id"]: (i["height"], i["width"]) for i in content["images"]}
    by_image = {i: [] for i in sizes}
    for entry in entries:
        by_image[entry["image_id"]].append(entry)
    detections = []
    for image_id, own in by_image.items():
        masks = None
        boxes = [e["bbox"] if "bbox" in e else coco_mask.toBbox(e["segmentation"]).tolist() for e in own]
        if own and "segmentation" in own[0]:
            masks = torch.from_numpy(np.stack([coco_mask.decode(e["segmentation"]) for e in own])).bool()
        elif not own:
            masks = torch.zeros(0, *sizes[image_id], dtype=torch.bool)
        boxes = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
        detections.append(
            Detections(
                boxes=torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1),
                scores=torch.tensor([e["score"] for e in own], dtype=torch.float64),
                labels=torch.tensor([labels[e["category_id"]] for e in own], dtype=torch.int64),
                masks=masks,
            )
        )
    return list(by_image), detections


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("way", ["file", "memory", "ranks"])
def test_the_twelve_figures(content, results, kind, way):
    dataset = dataset_of(content)
    evaluator = CocoEvaluator(dataset, kinds=(kind,))
    assert isinstance(evaluator, Evaluator)
    if way == "file":
        evaluator.update_from_json(results[kind])
    else:
        ids, detections = as_detections(content, json.loads(results[kind].read_text()))
        half = len(ids) // 2 if way == "ranks" else len(ids)
        for i in reversed(range(half)):
            evaluator.update([ids[i]], [detections[i]])
        other = CocoEvaluator(dataset, kinds=(kind,))
        other.update(ids[half:], detections[half:])
        evaluator.merge(other)
    report = evaluator.compute()
    assert report[f"{kind}/AP"] == pytest.approx(AP[kind], abs=1e-12)
    official = official_coco(content, json.loads(results[kind].read_text()), kind).stats
    for name, expected in zip(COCO_FIGURES, official):
        assert report[f"{kind}/{name}"] == pytest.approx(expected, abs=1e-12), name
    assert report.main == f"{kind}/AP"
    assert report.counts.images == 100
    assert report.counts.ground_truths == 839
    assert report.counts.ignored == 9
    assert all("classes without an object in the data" in note for note in report.notes)


def test_more_detections_than_count(tmp_path):
    rng = np.random.default_rng(3)
    content = {
        "images": [{"id": i, "height": 400, "width": 400} for i in (5, 2)],
        "categories": [{"id": c, "name": str(c)} for c in (9, 4)],
        "annotations": [],
    }
    results = []
    for i in range(60):
        x, y, w, h = rng.integers(1, 200, 4).tolist()
        image, category = int(rng.choice([5, 2])), int(rng.choice([9, 4]))
        content["annotations"].append(
            {"id": i + 1, "image_id": image, "category_id": category, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
        )
        for _ in range(20):
            box = [x + int(rng.integers(-3, 4)), y, w, h + int(rng.integers(0, 30))]
            score = int(rng.integers(40)) / 40
            results.append({"image_id": image, "category_id": category, "bbox": box, "score": score})
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    evaluator = CocoEvaluator(dataset_of(content), kinds=("bbox",))
    evaluator.update_from_json(path)
    report = evaluator.compute()
    official = official_coco(content, results, "bbox").stats
    for name, expected in zip(COCO_FIGURES, official):
        assert report[f"bbox/{name}"] == (None if expected == -1 else pytest.approx(expected, abs=1e-12)), name
    assert len(evaluator.scored("bbox").found) == 400


def box_content():
    return {
        "images": [{"id": 7, "height": 100, "width": 200}, {"id": 8, "height": 100, "width": 200}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 20], "area": 400.0, "iscrowd": 0}
        ],
    }


def found(boxes=((10.0, 10.0, 30.0, 30.0),), scores=(0.5,), labels=(0,), masks=None):
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels), masks
    )


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        (found(boxes=((0.0, 0.0, float("nan"), 5.0),)), "image 7: boxes are not finite: nan"),
        (found(scores=(float("inf"),)), "image 7: scores are not finite: inf"),
        (found(labels=(2,)), "label 2; the dataset has 2 classes, labels 0 to 1"),
        (found(labels=(-1,)), "label -1"),
        (found(scores=(0.5, 0.4)), r"expected boxes \(N, 4\)"),
        (found(boxes=((100.0, 50.0, 20.0, 20.0),)), "end before they start"),
    ],
)
def test_wrong_detections(detections, message):
    evaluator = CocoEvaluator(dataset_of(box_content()), kinds=("bbox",))
    with pytest.raises(ValueError, match=message):
        evaluator.update([7], [detections])
    # Nothing of a refused update stays.
    evaluator.update([7, 8], [found(), found(boxes=(), scores=(), labels=())])
    report = evaluator.compute()
    assert report["bbox/AP"] == pytest.approx(1)
    assert not report.notes


def test_boxes_outside_are_counted():
    """A detector that does not cut its boxes may give such in its first epochs; training goes on."""
    evaluator = CocoEvaluator(dataset_of(box_content()), kinds=("bbox",))
    evaluator.update([7, 8], [found(boxes=((300.0, 50.0, 400.0, 90.0),)), found(boxes=(), scores=(), labels=())])
    report = evaluator.compute()
    assert report["bbox/AP"] == 0
    assert any("1 detections lie outside their image" in note for note in report.notes)


def test_wrong_images():
    evaluator = CocoEvaluator(dataset_of(box_content()), kinds=("bbox",))
    with pytest.raises(ValueError, match="image id 9 is not in the dataset, whose ids are such as 7, 8"):
        evaluator.update([9], [found()])
    with pytest.raises(ValueError, match="2 image ids but detections of 1 images"):
        evaluator.update([7, 8], [found()])
    with pytest.raises(ValueError, match="given twice"):
        evaluator.update([7, 7], [found(), found()])
    evaluator.update(torch.tensor([7]), [found()])
    with pytest.raises(ValueError, match="image 7 was given before"):
        evaluator.update([7], [found()])
    other = CocoEvaluator(dataset_of(box_content()), kinds=("bbox",))
    other.update([7], [found()])
    with pytest.raises(ValueError, match="1 images were given to both, such as 7"):
        evaluator.merge(other)


def test_wrong_masks():
    content = box_content()
    content["annotations"][0]["segmentation"] = [[10, 10, 30, 10, 30, 30, 10, 30]]
    evaluator = CocoEvaluator(dataset_of(content))
    with pytest.raises(ValueError, match="there are no masks"):
        evaluator.update([7], [found()])
    with pytest.raises(ValueError, match=r"masks have shape \(1, 50, 100\); expected \(1, 100, 200\)"):
        evaluator.update([7], [found(masks=torch.ones(1, 50, 100, dtype=torch.bool))])
    with pytest.raises(ValueError, match="needs masks, and the dataset has none"):
        CocoEvaluator(dataset_of(box_content()))
    with pytest.raises(ValueError, match="'bbox', 'segm' or both"):
        CocoEvaluator(dataset_of(content), kinds=("boxes",))  # type: ignore[arg-type]


def test_many_masks_in_an_image():
    content = box_content()
    content["annotations"][0]["segmentation"] = [[10, 10, 30, 10, 30, 30, 10, 30]]
    masks = torch.zeros(300, 100, 200, dtype=torch.bool)
    masks[:, 10:30, 10:30] = True
    boxes = torch.tensor([[10.0, 10, 30, 30]]).expand(300, 4)
    detections = Detections(boxes, torch.linspace(1, 0, 300), torch.zeros(300, dtype=torch.int64), masks)
    evaluator = CocoEvaluator(dataset_of(content), kinds=("segm",))
    evaluator.update([7], [detections])
    assert evaluator.compute()["segm/AP"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"image_id": 9}, "entry 1, field 'image_id': image is not in the dataset; found 9"),
        ({"score": float("nan")}, "entry 1, field 'score': not a finite number; found nan"),
        ({"score": "0.5"}, "entry 1, field 'score'"),
        ({"bbox": [1, 2, 3]}, "entry 1, field 'bbox'"),
        ({"bbox": [1, 2, -3, 4]}, "entry 1, field 'bbox'"),
        ({"bbox": None}, "entry 1, field 'bbox'"),
        ({"image_id": [7]}, "entry 1, field 'image_id': not an id"),
    ],
)
def test_wrong_results_file(tmp_path, entry, message):
    good = {"image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 20], "score": 0.5}
    path = tmp_path / "results.json"
    path.write_text(json.dumps([good, good | entry]))
    evaluator = CocoEvaluator(dataset_of(box_content()), kinds=("bbox",))
    with pytest.raises(DatasetError, match=message):
        evaluator.update_from_json(path)
    path.write_text(json.dumps([good, {k: v for k, v in good.items() if k != "score"}]))
    with pytest.raises(DatasetError, match="entry 1, field 'score': field is missing"):
        evaluator.update_from_json(path)
    path.write_text("{")
    with pytest.raises(DatasetError, match="not a JSON file"):
        evaluator.update_from_json(path)
    path.write_text(json.dumps([good]))
    evaluator.update_from_json(path)
    assert evaluator.compute()["bbox/AP"] == pytest.approx(1)


@pytest.mark.parametrize("counts", ["", "a", "~~~~", "0" * 50, "\x00\x01", [1, 2], [-5, 20005], None, 5])
def test_malformed_run_lengths(tmp_path, counts):
    content = box_content()
    content["annotations"][0]["segmentation"] = [[10, 10, 30, 10, 30, 30, 10, 30]]
    entry = {"image_id": 7, "category_id": 3, "score": 0.5, "segmentation": {"size": [100, 200], "counts": counts}}
    path = tmp_path / "results.json"
    path.write_text(json.dumps([entry]))
    with pytest.raises(DatasetError, match="entry 0, field 'segmentation"):
        CocoEvaluator(dataset_of(content), kinds=("segm",)).update_from_json(path)


def test_missing_figures_are_explained(tmp_path):
    content = box_content()
    path = tmp_path / "results.json"

    def report(entries, content=content):
        path.write_text(json.dumps(entries))
        evaluator = CocoEvaluator(dataset_of(content), kinds=("bbox",))
        evaluator.update_from_json(path)
        return evaluator.compute()

    good = {"image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 20], "score": 0.5}
    figures = report([good]).metrics
    assert figures["bbox/APs"].value == pytest.approx(1)
    assert figures["bbox/APl"].value is None
    assert figures["bbox/APl"].reason == "no ground truth of this size (large)"
    assert report([good]).per_class["dog"]["bbox/AP"].reason == "no ground truth"
    away = report([good | {"bbox": [150, 60, 20, 20]}])
    assert away["bbox/AP"] == 0
    assert "none overlaps any ground truth" in away.notes[0]
    assert "at IoU 0.5 or more" in report([good | {"bbox": [10, 10, 20, 8]}]).notes[0]
    assert "classes of detections and ground truths are disjoint" in report([good | {"category_id": 5}]).notes[0]
    assert "category ids are disjoint" in report([good | {"category_id": 90}]).notes[0]
    assert "there are no detections" in report([]).notes[0]
    nothing = report([good], content | {"annotations": []})
    assert nothing.metrics["bbox/AP"].reason == "no ground truth"
    assert "there is no ground truth" in nothing.notes[0]
    only_one = CocoEvaluator(dataset_of(content), kinds=("bbox",))
    only_one.update([7], [found()])
    assert "1 of 2 images were given no detections" in only_one.compute().notes[0]


def test_state_is_small_and_plain():
    content = box_content()
    evaluator = CocoEvaluator(dataset_of(content), kinds=("bbox",))
    evaluator.update([7], [found()])
    state = pickle.loads(pickle.dumps(evaluator.state()))
    other = CocoEvaluator(dataset_of(content), kinds=("bbox",))
    other.update([8], [found(boxes=(), scores=(), labels=())])
    other.merge_state(state)
    assert other.compute()["bbox/AP"] == pytest.approx(1)
