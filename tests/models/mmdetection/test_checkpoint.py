"""Checkpoints that the real MMDetection trained give the detections that it gave."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import sdk
from sdk.datasets import Coco
from sdk.datasets.reading import read_image
from sdk.inference.running import detect
from sdk.models import from_mmdetection
from sdk.models.mmdetection.settings import ConfigError
from sdk.results.run import load
from sdk.verbs.convert_mmdetection import convert_mmdetection


@pytest.mark.parametrize("name", ["retinanet", "faster"])
def test_detections_are_those_of_mmdetection(shared, name, tmp_path):
    root = shared / "mmdetection"
    trained = load(root / name / "epoch_8.pth")
    assert trained.classes == ("Platelets", "RBC", "WBC")
    images = json.loads((root / "test.json").read_text())["images"]
    expected = json.loads((root / name / "results.json").read_text())
    found, equal = [], 0
    for image in images:
        pixels = read_image(shared / "data" / "bccd" / "JPEGImages" / image["file_name"])
        ours = detect(trained, [pixels])[0]
        boxes, scores, labels = ours.boxes.numpy(), ours.scores.numpy(), ours.labels.numpy()
        for box, score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist()):
            x1, y1, x2, y2 = box
            entry = {"image_id": image["id"], "category_id": label + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            found.append({**entry, "score": score})
        for theirs in (one for one in expected if one["image_id"] == image["id"]):
            x, y, w, h = theirs["bbox"]
            close = np.abs(boxes - [x, y, x + w, y + h]).max(axis=1) < 0.05
            close &= (np.abs(scores - theirs["score"]) < 1e-4) & (labels == theirs["category_id"] - 1)
            equal += bool(close.any())
    assert equal >= 0.995 * len(expected)
    assert abs(len(found) - len(expected)) <= 0.005 * len(expected)
    (tmp_path / "found.json").write_text(json.dumps(found))
    dataset = Coco(annotations=root / "test.json", images=shared / "data" / "bccd" / "JPEGImages")
    report = sdk.evaluate(dataset, tmp_path / "found.json")
    figures = json.loads((root / name / "figures.json").read_text())
    assert report["bbox/AP"] == pytest.approx(figures["bbox_mAP"], abs=1e-4)
    assert report["bbox/AP50"] == pytest.approx(figures["bbox_mAP_50"], abs=1e-4)


def test_a_configuration_given_beside_is_the_same(shared):
    root = shared / "mmdetection" / "retinanet"
    carried, given = (
        from_mmdetection(root / "epoch_8.pth"),
        from_mmdetection(root / "epoch_8.pth", root / "retinanet.py"),
    )
    assert carried.recipe.preprocessing == given.recipe.preprocessing  # type: ignore[union-attr]
    assert carried.test == given.test  # type: ignore[attr-defined]


def test_other_classes_keep_what_both_name(shared):
    class Own:
        classes = ("WBC", "Parasite")

    file = shared / "mmdetection" / "retinanet" / "epoch_8.pth"
    model, before = from_mmdetection(file, num_classes=Own()), from_mmdetection(file)
    assert model.classes == ("WBC", "Parasite")
    kept, whole = model.bbox_head.retina_cls.weight, before.bbox_head.retina_cls.weight  # type: ignore[union-attr]
    assert torch.equal(kept.view(-1, 2, *kept.shape[1:])[:, 0], whole.view(-1, 3, *whole.shape[1:])[:, 2])  # type: ignore[operator, arg-type]


def test_converting_writes_weights_recipe_and_report(shared, tmp_path):
    file = shared / "mmdetection" / "faster" / "epoch_8.pth"
    weights = convert_mmdetection(file, tmp_path / "out")
    converted, original = load(weights), load(file)
    for key, value in original.model.state_dict().items():
        assert torch.equal(value, converted.model.state_dict()[key])
    scope: dict = {}
    exec((tmp_path / "out" / "recipe.py").read_text(), scope)
    assert scope["RECIPE"] == original.recipe == converted.recipe
    report = (tmp_path / "out" / "report.txt").read_text().splitlines()
    assert "model.roi_head.bbox_head.reg_class_agnostic = True: translated" in report
    assert "work_dir = 'work_dirs/faster': not read" in report
    assert not [line for line in report if line.startswith("model.") and line.endswith("not read")]
    with pytest.raises(sdk.errors.SdkError, match="exists already"):
        convert_mmdetection(file, tmp_path / "out")


def test_training_goes_on_from_a_checkpoint(shared, tmp_path):
    dataset = sdk.datasets.Voc(shared / "data" / "bccd", split="val")
    few = sdk.datasets.subset(dataset, range(4))
    file = shared / "mmdetection" / "retinanet" / "epoch_8.pth"
    run = sdk.fit(few, str(file), epochs=1, batch_size=2, workers=0, out=tmp_path / "run")
    again = load(tmp_path / "run")
    assert again.classes == tuple(few.classes)
    assert again.recipe.preprocessing == run.recipe.preprocessing
    assert len(sdk.predict(np.zeros((240, 320, 3), np.uint8), run).scores) >= 0


def test_a_checkpoint_without_configuration(tmp_path):
    torch.save({"state_dict": {"backbone.x": torch.zeros(1)}}, tmp_path / "own.pth")
    with pytest.raises(ConfigError, match="carries no configuration, and none lies beside it"):
        from_mmdetection(tmp_path / "own.pth")
