"""Predictions as files: what comes back, and what is left where they are not all there."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pycocotools.mask as coco_mask
import pytest
import torch
import yaml
from PIL import Image

import sdk
from sdk.datasets import DatasetError, Shapes
from sdk.errors import SdkError
from sdk.evaluators.coco import CocoEvaluator
from sdk.fiftyone.predictions import predictions_of
from sdk.inference.prediction import Prediction
from sdk.inference.sources import Source
from sdk.inference.writing import Ids, Parquet, writer_for


def made(image_id, count: int, masks: bool = False, seed: int = 0) -> Prediction:
    """Random detections in an image of 48 x 64."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator).sort(1).values * torch.tensor([64.0, 48.0])
    scores = torch.rand(count, generator=generator).sort(descending=True).values
    labels = torch.randint(3, (count,), generator=generator)
    found = torch.rand(count, 48, 64, generator=generator) > 0.5 if masks else None
    return Prediction(
        corners.reshape(count, 4),
        scores,
        labels,
        found,
        classes=("dog", "cat", "fox: red"),
        path=Path("images/one.jpg"),
        drawn=np.zeros((48, 64, 3), np.uint8),
        image_id=image_id,
        size=(48, 64),
        category_ids=(3, 7, 8),
    )


def write(out, predictions) -> None:
    with writer_for(out) as writer:
        for prediction in predictions:
            writer.add(prediction)


@pytest.mark.parametrize("masks", [False, True])
def test_coco_results_come_back_equal(tmp_path, masks):
    predictions = [made(4, 5, masks), made(9, 0, masks), made(2, 3, masks, seed=1)]
    write(tmp_path / "results.json", predictions)
    entries = json.loads((tmp_path / "results.json").read_text())
    assert entries == [entry for one in predictions for entry in one.to_coco()]
    assert [entry["image_id"] for entry in entries] == [4] * 5 + [2] * 3
    boxes = torch.tensor([entry["bbox"] for entry in entries], dtype=torch.float64)
    boxes[:, 2:] += boxes[:, :2]
    assert torch.equal(boxes.float(), torch.cat([one.boxes for one in predictions]))
    assert ("segmentation" in entries[0]) == masks
    write(tmp_path / "empty.json", [])
    assert json.loads((tmp_path / "empty.json").read_text()) == []


def test_json_lines_come_back_equal(tmp_path):
    predictions = [made("a/é", 5, True), made("b", 0)]
    write(tmp_path / "results.jsonl", predictions)
    lines = (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [one.to_dict() for one in predictions]


def test_tables_come_back_equal(tmp_path, monkeypatch):
    monkeypatch.setattr(Parquet, "ROWS", 4)
    predictions = [made(5, 7, True), made(6, 0, True), made(1, 2, True, seed=1)]
    write(tmp_path / "new/results.csv", predictions)
    write(tmp_path / "new/results.parquet", predictions)
    with open(tmp_path / "new/results.csv", newline="") as file:
        text = list(csv.DictReader(file))
    rows = parquet.read_table(tmp_path / "new/results.parquet").to_pylist()
    assert parquet.ParquetFile(tmp_path / "new/results.parquet").num_row_groups == 2
    assert len(rows) == len(text) == 9
    boxes = torch.cat([one.boxes for one in predictions])
    for table in (rows, text):
        edges = [[float(row[edge]) for edge in ("x1", "y1", "x2", "y2")] for row in table]
        assert torch.equal(torch.tensor(edges), boxes)
        scores = torch.tensor([float(row["score"]) for row in table])
        assert torch.equal(scores, torch.cat([one.scores for one in predictions]))
        assert [int(row["image_id"]) for row in table] == [5] * 7 + [1] * 2
        assert [row["class"] for row in table] == [name for one in predictions for name in one.names]
    runs = [{"size": [row["height"], row["width"]], "counts": row["mask"]} for row in rows[:7]]
    assert np.array_equal(coco_mask.decode(runs).transpose(2, 0, 1), predictions[0].masks.numpy())


def test_parquet_without_objects_or_masks(tmp_path):
    write(tmp_path / "nothing.parquet", [])
    assert parquet.read_table(tmp_path / "nothing.parquet").num_rows == 0
    write(tmp_path / "boxes.parquet", [replace(made("a", 2), category_ids=None, path=None)])
    table = parquet.read_table(tmp_path / "boxes.parquet")
    assert "mask" not in table.column_names
    assert table["category_id"].to_pylist() == [None, None]
    with pytest.raises(SdkError, match="image id 7: expected text, as before"):
        write(tmp_path / "mixed.parquet", [made("a", 2), made(7, 1)])


def test_yolo_text(tmp_path):
    predictions = [made("a/b", 4), made("../c", 0), made(12, 1)]
    write(f"yolo:{tmp_path}/labels", predictions)
    files = sorted(path.relative_to(tmp_path / "labels").as_posix() for path in (tmp_path / "labels").rglob("*.*"))
    assert files == ["12.txt", "_/c.txt", "a/b.txt", "data.yaml"]
    assert yaml.safe_load((tmp_path / "labels/data.yaml").read_text())["names"] == dict(
        enumerate(["dog", "cat", "fox: red"])
    )
    lines = (tmp_path / "labels/a/b.txt").read_text().splitlines()
    rows = torch.tensor([[float(value) for value in line.split()] for line in lines])
    assert rows[:, 0].tolist() == predictions[0].labels.tolist()
    torch.testing.assert_close(rows[:, 5], predictions[0].scores)
    size = torch.tensor([64, 48])
    centers, sides = rows[:, 1:3] * size, rows[:, 3:5] * size
    torch.testing.assert_close(torch.cat([centers - sides / 2, centers + sides / 2], 1), predictions[0].boxes)
    assert (tmp_path / "labels/_/c.txt").read_text() == ""
    with pytest.raises(SdkError, match="is there already, and nothing is overwritten"):
        writer_for(f"yolo:{tmp_path}/labels")


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv", ".parquet"])
def test_nothing_is_overwritten_and_nothing_looks_whole_that_is_not(tmp_path, ending, capsys):
    path = tmp_path / f"results{ending}"
    path.write_text("mine")
    with pytest.raises(SdkError, match="is there already, and nothing is overwritten"):
        writer_for(path)
    assert path.read_text() == "mine"
    path.unlink()
    with pytest.raises(SdkError, match="two images have the id 1"):
        write(path, [made(1, 3), made(1, 3)])
    part = tmp_path / f"results{ending}.part"
    assert not path.exists()
    assert part.stat().st_size
    assert "the objects of 1 images are in" in capsys.readouterr().err
    if ending == ".parquet":
        assert parquet.read_table(part).num_rows == 3
    with pytest.raises(SdkError, match="was left by another try"):
        writer_for(path)
    part.unlink()
    with pytest.raises(KeyError), writer_for(path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_ids_are_unique():
    ids = Ids()
    assert [ids.add(name) for name in ("a", "a", "a-2", "a", "b")] == ["a", "a-2", "a-2-2", "a-3", "b"]
    ids.add(3)
    with pytest.raises(SdkError, match="two images have the id 3"):
        ids.add(3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = Shapes(24, size=(64, 64)).write_coco(tmp_path_factory.mktemp("data"))
    return sdk.datasets.Coco(folder).val


def as_annotated(dataset, index: int) -> Prediction:
    """What a detector would find that makes some mistakes."""
    sample = dataset[index]
    labels = torch.from_numpy(sample.labels) if index % 3 else torch.zeros(len(sample.labels), dtype=torch.int64)
    return Prediction(
        torch.from_numpy(sample.boxes + index),
        torch.linspace(0.9, 0.3, len(labels)),
        labels,
        torch.from_numpy(sample.masks.decode().astype(bool)),
        classes=tuple(dataset.classes),
        image_id=sample.image_id,
        size=sample.size,
        category_ids=tuple(dataset.category_ids),
        source=Source(sample.image),
    )


@pytest.mark.parametrize("ending", [".json", ".parquet"])
@pytest.mark.parametrize("masks", [False, True])
def test_files_are_scored_as_the_detections_are(dataset, tmp_path, ending, masks):
    predictions = [as_annotated(dataset, index) for index in range(len(dataset))]
    if not masks:
        predictions = [replace(one, masks=None) for one in predictions]
    evaluator = CocoEvaluator(dataset, kinds=("bbox", "segm") if masks else ("bbox",))
    evaluator.update([one.image_id for one in predictions], predictions)
    expected = evaluator.compute()
    write(tmp_path / f"results{ending}", predictions)
    report = sdk.evaluate(dataset, tmp_path / f"results{ending}")
    assert report.metrics.keys() == expected.metrics.keys()
    assert ("segm/AP" in report.metrics) == masks
    assert 0 < report["bbox/AP"] < 1
    for name, value in expected.metrics.items():
        assert report.metrics[name].value == value.value, name


def test_masks_of_files_are_shown_alike(dataset, tmp_path):
    predictions = [as_annotated(dataset, index) for index in range(len(dataset))]
    write(tmp_path / "results.json", [replace(one, image_id=f"{one.image_id:08}") for one in predictions])
    write(tmp_path / "results.parquet", predictions)
    by_json, by_parquet = (predictions_of(dataset, tmp_path / f"results.{ending}") for ending in ("json", "parquet"))
    assert len(by_json.masks) == sum(map(len, predictions)) > 0
    assert by_json.masks == by_parquet.masks


def test_what_a_parquet_file_of_predictions_may_not_be(dataset, tmp_path):
    one = replace(as_annotated(dataset, 0), masks=None)
    write(tmp_path / "unknown.parquet", [replace(one, image_id=12345)])
    with pytest.raises(DatasetError, match=r"unknown\.parquet, entry 0, field 'image_id': image is not in the dataset"):
        sdk.evaluate(dataset, tmp_path / "unknown.parquet")
    write(tmp_path / "nobody.parquet", [replace(one, category_ids=None)])
    with pytest.raises(DatasetError, match="field 'category_id': values are missing"):
        sdk.evaluate(dataset, tmp_path / "nobody.parquet")
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(DatasetError, match="not a Parquet file"):
        sdk.evaluate(dataset, tmp_path / "text.parquet")
    parquet.write_table(parquet.read_table(tmp_path / "unknown.parquet").drop(["x1"]), tmp_path / "other.parquet")
    with pytest.raises(DatasetError, match="field 'x1': column is missing"):
        sdk.evaluate(dataset, tmp_path / "other.parquet")


def test_a_file_is_no_folder_of_pictures(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "one.png")
    with pytest.raises(SdkError, match="is a file; expected a folder for the pictures"):
        writer_for(tmp_path / "one.png")
