"""Variations of the protocols: COCO's against pycocotools with its own parameters changed."""

from __future__ import annotations

import contextlib
import copy
import io
import json

import cv2
import numpy as np
import pycocotools.mask as coco_mask
import pytest
from oracles import dataset_of
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from test_analysis import random_scene, scene

import sdk
from sdk.datasets.errors import DatasetError
from sdk.evaluators.choosing import evaluator_for
from sdk.evaluators.coco import BOUNDARY_WIDTH, Coco, CocoEvaluator


def official(content, results, protocol, kind="bbox"):
    """(A, T, K) AP and recall, -1 where there is none, and recall by count of detections, of pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(content)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), kind)
        params = evaluation.params
        params.maxDets = list(protocol.max_detections)
        params.iouThrs = np.array(protocol.ious)
        params.areaRng, params.areaRngLbl = [list(b) for b in protocol.ranges.values()], list(protocol.ranges)
        params.useCats = int(not protocol.agnostic)
        if protocol.classes is not None:
            params.catIds = [c["id"] for c in content["categories"] if c["name"] in protocol.classes]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def mean(values):
    return None if not (values > -1).any() else float(values[values > -1].mean())


VARIATIONS = [
    Coco(max_detections=(10, 100, 1000)),
    Coco(max_detections=(1, 2)),
    Coco(max_detections=(3,), ious=(0.5,)),
    Coco(ious=(0.3, 0.5, 0.9)),
    Coco(areas={"tiny": (0, 300), "rest": (300, 1e10), "none": (1e9, 1e10)}),
    Coco(classes=("class 2", "class 4")),
    Coco(agnostic=True),
    Coco(max_detections=(1, 5), agnostic=True, ious=(0.5, 0.75), areas={"some": (100, 900)}),
]


@pytest.mark.parametrize("protocol", VARIATIONS, ids=str)
@pytest.mark.parametrize("digits", [16, 2])
def test_variations_are_those_of_pycocotools(tmp_path, protocol, digits):
    content, results = random_scene(3, digits)
    (tmp_path / "results.json").write_text(json.dumps(results))
    evaluator = protocol.evaluator(dataset_of(content), masks=False)
    evaluator.update_from_json(tmp_path / "results.json")
    report = evaluator.compute()
    precision, recall = official(content, results, protocol)
    wanted = {"AP": mean(precision[:, :, :, 0, -1])}
    for t, iou in enumerate(protocol.ious):
        if round(iou, 6) in (0.5, 0.75):
            wanted[f"AP{iou * 100:.0f}"] = mean(precision[t, :, :, 0, -1])
    for m, most in enumerate(protocol.max_detections):
        wanted[f"AR@{most}"] = mean(recall[:, :, 0, m])
    for a, size in list(enumerate(protocol.ranges))[1:]:
        wanted[f"AP{size}"] = mean(precision[:, :, :, a, -1])
        wanted[f"AR{size}"] = mean(recall[:, :, a, -1])
    assert {name: value.value for name, value in report.metrics.items()} == pytest.approx(
        {f"bbox/{name}": value for name, value in wanted.items()}, abs=1e-12
    )
    assert report["bbox/AP"]
    assert "varied" in report.protocol
    assert len(report.per_class) == (1 if protocol.agnostic else len(protocol.classes or range(4)))
    assert report.errors["bbox"].ap == pytest.approx(
        mean(precision[report.errors["bbox"].iou == np.array(protocol.ious)][:, :, :, 0, -1])
    )


def test_names_and_objects(tmp_path):
    content, _ = random_scene(0, 16)
    dataset = dataset_of(content)
    assert sdk.evaluators.Coco is Coco
    assert (
        str(evaluator_for(dataset, "coco").protocol) == str(Coco()) == evaluator_for(dataset, "coco").compute().protocol
    )
    assert (
        evaluator_for(dataset, sdk.evaluators.Voc(metric="11point")).compute().protocol.startswith("Pascal VOC, mean")
    )
    with pytest.raises(DatasetError, match=r"no such protocol.*kitti"):
        evaluator_for(dataset, "kitti")
    with pytest.raises(DatasetError, match="not a protocol"):
        evaluator_for(dataset, 5)  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=r"no such class.*zebra"):
        evaluator_for(dataset, Coco(classes=("zebra",)))
    with pytest.raises(ValueError, match="boundaries are those of masks"):
        evaluator_for(dataset, Coco(boundary=True))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_detections": (100, 10)}, "max_detections: expected rising"),
        ({"max_detections": ()}, "max_detections"),
        ({"ious": (0.5, 1.5)}, "ious: expected thresholds"),
        ({"ious": ()}, "ious"),
        ({"areas": {"small": (9, 4)}}, "areas: small"),
        ({"classes": "person"}, "classes: expected names"),
    ],
)
def test_what_means_nothing(settings, words):
    with pytest.raises(ValueError, match=words):
        Coco(**settings)


def contour(mask, width):
    """Pixels of a mask within ``width`` king's moves of a pixel outside of it or of the image, by distances."""
    padded = np.pad(mask.astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_C, 3)[1:-1, 1:-1]
    return mask & (distance <= width)


def test_boundary_iou_by_distance(tmp_path):
    """Each pair's IoU is the lesser of both, with boundaries from distances instead of erosions."""
    draw = np.random.default_rng(0)
    height, width = 120, 160
    shape = lambda x, y, r: np.hypot(*np.meshgrid(np.arange(width) - x, np.arange(height) - y)) < r
    truths = [shape(40, 40, 30), shape(110, 60, 45), shape(20, 100, 25)]
    found = [np.roll(mask, draw.integers(-4, 5, 2), (0, 1)) for mask in truths]
    rle = lambda mask: coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = lambda mask: {"size": [height, width], "counts": rle(mask)["counts"].decode()}
    content = {
        "images": [{"id": 1, "height": height, "width": width}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": int(mask.sum()),
             "bbox": coco_mask.toBbox(rle(mask)).tolist(), "segmentation": text(mask)}
            for i, mask in enumerate(truths, 1)
        ],
    }  # fmt: skip
    results = [
        {"image_id": 1, "category_id": 1, "score": 0.9 - i / 10, "segmentation": text(mask)}
        for i, mask in enumerate(found)
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    evaluator = CocoEvaluator(dataset_of(content), ("boundary",), Coco(boundary=True))
    evaluator.update_from_json(tmp_path / "results.json")
    pairs = evaluator.compared("boundary").pairs
    seen = {(d, g): iou for d, g, iou in zip(pairs.detection.tolist(), pairs.truth.tolist(), pairs.iou.tolist())}
    thick = round(BOUNDARY_WIDTH * np.hypot(height, width))
    iou = lambda a, b: (a & b).sum() / (a | b).sum()
    for d, first in enumerate(found):
        for g, second in enumerate(truths):
            wanted = min(iou(first, second), iou(contour(first, thick), contour(second, thick)))
            assert seen.get((d, g), 0.0) == pytest.approx(wanted if wanted >= 0.1 else 0.0, abs=1e-9)
    assert min(seen[i, i] for i in range(3)) < min(iou(a, b) for a, b in zip(found, truths))
    report = evaluator.compute()
    assert report.main == "boundary/AP"
    assert "boundary=True" in report.protocol


def test_report_as_text_and_values(tmp_path, capsys):
    report = scene(tmp_path, [(1, [0, 0, 20, 20], 0)], [(1, [0, 0, 20, 20], 0.9), (2, [0, 0, 20, 19], 0.8)]).compute()
    assert repr(report) == "Report(COCO detection: bbox/AP 1.0000, bbox/AP50 1.0000, bbox/AP75 1.0000; 1 images)"
    report.show()
    shown = capsys.readouterr().out
    assert "classification" in shown
    assert "bbox/AR@100" in shown
    assert str(report) + "\n" == shown
    assert "<table>" in report._repr_html_()
    pandas = pytest.importorskip("pandas")
    table = report.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert table[table.class_name.isna()].set_index("figure").value["bbox/AP"] == pytest.approx(1)
    assert table[table.class_name == "class 2"].reason.notna().any()
    kept = json.loads(json.dumps(report.to_dict()))
    assert kept["errors"]["bbox"]["counts"]["classification"] == 1
    assert kept["froc"]["bbox"]["1.0"] == 1


def test_notes_on_what_keeps_figures_low(tmp_path):
    truths = [(1, [10 * i, 0, 8, 8], 0) for i in range(5)]
    content = {"images": [], "annotations": [], "categories": [{"id": c, "name": f"class {c}"} for c in (1, 2)]}
    results = []
    for image in (1, 2):
        content["images"].append({"id": image, "height": 100, "width": 100})
        for category, box, crowd in truths[: 6 - image]:
            content["annotations"].append({
                "id": len(content["annotations"]) + 1, "image_id": image, "category_id": category, "bbox": box,
                "area": 64, "iscrowd": crowd,
            })  # fmt: skip
        for i, category in enumerate((1, 1, 1, 2)):
            box = [10 * i, 0, 8, 8]
            results.append({"image_id": image, "category_id": category, "bbox": box, "score": 0.9 - i / 10})
    (tmp_path / "results.json").write_text(json.dumps(results))
    evaluator = CocoEvaluator(dataset_of(content), kinds=("bbox",))
    evaluator.update_from_json(tmp_path / "results.json")
    notes = "\n".join(evaluator.compute().notes)
    assert "1 images hold more objects than the 4 detections" in notes
    assert "no detection scores below 0.6" in notes
    assert "2 detections name 1 classes without an object in the data, such as class 2" in notes
    plain = scene(tmp_path, [(1, [0, 0, 20, 20], 0)], [(1, [0, 0, 20, 20], 0.9), (1, [0, 0, 20, 19], 0.01)])
    assert plain.compute().notes == ()


def test_polygons_of_results_are_masks(tmp_path):
    """Oriented boxes among them, which are polygons of four corners."""
    square = [10, 10, 40, 10, 40, 40, 10, 40]
    turned = [60, 30, 80, 50, 60, 70, 40, 50]
    content = {
        "images": [{"id": 1, "height": 100, "width": 120}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 800, "bbox": [0, 0, 1, 1],
             "segmentation": [polygon]}
            for i, polygon in enumerate((square, turned), 1)
        ],
    }  # fmt: skip
    reports = []
    for form in (lambda p: [p], lambda p: coco_mask.merge(coco_mask.frPyObjects([p], 100, 120))):
        results = [
            {"image_id": 1, "category_id": 1, "score": score, "segmentation": form(polygon)}
            for score, polygon in ((0.9, turned), (0.8, [p + 3 for p in square]))
        ]
        for entry in results:
            if isinstance(entry["segmentation"], dict):
                entry["segmentation"]["counts"] = entry["segmentation"]["counts"].decode()
        (tmp_path / "results.json").write_text(json.dumps(results))
        evaluator = CocoEvaluator(dataset_of(content), kinds=("segm",))
        evaluator.update_from_json(tmp_path / "results.json")
        reports.append(evaluator.compute())
    assert reports[0].metrics == reports[1].metrics
    assert reports[0]["segm/AP50"] == pytest.approx(1)
    assert reports[0]["segm/AP"] < 1
