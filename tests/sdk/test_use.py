"""Scoring, prediction, weights and the command line, on one small training."""

from __future__ import annotations

import json
import re
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import sdk
from sdk import cli
from sdk.datasets import DatasetError, Shapes
from sdk.errors import RunError, SdkError
from sdk.opening import open_dataset
from sdk.results.state import load_training_state
from sdk.results.weights import load_weights


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One epoch of the zoo's small detector, so that it can be made again from the folder alone."""
    made = sdk.fit(
        Shapes(8, size=(64, 64)),
        "retinanet_tiny_shapes",
        out=tmp_path_factory.mktemp("runs") / "run",
        workers=0,
        epochs=1,
    )
    made.model.test.score_threshold = 0.0
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Shapes(8, size=(64, 64)).write_coco(tmp_path_factory.mktemp("data"))


def test_a_folder_alone_gives_the_same_detector(run):
    again = sdk.Run(run.folder)
    assert again.classes == run.classes == ("circle", "square", "triangle", "cross")
    assert again.model.recipe.name == "retinanet_tiny_shapes"
    image = Shapes(4)[0].image
    again.model.test.score_threshold = 0.0
    first, second = (sdk.predict(image, what) for what in (run, again))
    assert len(first)
    assert torch.equal(first.boxes, second.boxes)
    assert torch.equal(first.scores, second.scores)


def test_every_kind_of_image_gives_the_same(run, tmp_path):
    image = Shapes(4)[1].image
    path = tmp_path / "one.png"
    Image.fromarray(image).save(path)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    expected = sdk.predict(image, run)
    assert len(expected.names) == len(expected)
    for same in (path, str(path), Image.fromarray(image), tensor, tensor / 255):
        found = sdk.predict(same, run)
        torch.testing.assert_close(found.boxes, expected.boxes)
        torch.testing.assert_close(found.scores, expected.scores)
    for several in (tmp_path, [path, image], torch.stack([tensor, tensor])):
        batch = sdk.predict(several, run, batch_size=2)
        assert len(batch) == (1 if several is tmp_path else 2)
        torch.testing.assert_close(batch[0].scores, expected.scores, rtol=1e-4, atol=1e-5)


def test_detections_lie_in_the_image_that_was_given(run):
    image = np.zeros((90, 201, 3), np.uint8)
    found = sdk.predict(image, run)
    assert len(found)
    assert float(found.boxes[:, 0::2].max()) <= 201
    assert float(found.boxes[:, 1::2].max()) <= 90


def test_drawing(run, tmp_path):
    image = Shapes(4)[1].image
    before = image.copy()
    found = sdk.predict(image, run, draw=True, draw_threshold=0.0, out=tmp_path / "drawn")
    assert found.drawn.shape == image.shape
    assert np.array_equal(image, before)
    assert not np.array_equal(found.drawn, image)
    assert (tmp_path / "drawn/000000.png").is_file()
    Image.fromarray(image).save(tmp_path / "a.png")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(image).save(tmp_path / name / "same.png")
    same = [tmp_path / "a/same.png", tmp_path / "b/same.png", tmp_path / "a.png"]
    sdk.predict(same, run, out=tmp_path / "several")
    assert sorted(file.name for file in (tmp_path / "several").iterdir()) == ["a.png", "same-2.png", "same.png"]
    with pytest.raises(SdkError, match="images are read from this folder"):
        sdk.predict(tmp_path, run, out=tmp_path)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (np.zeros((8, 8, 3), np.uint16), "expected .H, W, 3., gray .H, W. or .* found .8, 8, 3. of uint16"),
        (np.full((8, 8, 3), 2.0), "in 0..1"),
        (np.zeros((3, 8, 8), np.uint8), "expected .H, W, 3."),
        (np.zeros((0, 8, 3), np.uint8), "expected pixels"),
        (torch.zeros(8, 8, 3), "expected .3, H, W."),
        (torch.full((3, 8, 8), 2.0), "in 0..1"),
        (7.5, "expected a path"),
        (7, "camera 7: cannot be opened"),
    ],
)
def test_what_is_no_image(run, wrong, told):
    with pytest.raises(SdkError, match=told):
        sdk.predict(wrong, run)


def test_missing_and_broken_files(run, tmp_path):
    with pytest.raises(DatasetError, match=r"none\.jpg"):
        sdk.predict(tmp_path / "none.jpg", run)
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(DatasetError, match=r"text\.jpg"):
        sdk.predict(tmp_path / "text.jpg", run)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SdkError, match="no image in this folder"):
        sdk.predict(tmp_path / "empty", run)


def test_broken_runs(run, tmp_path):
    with pytest.raises(RunError, match="not a run folder"):
        sdk.Run(tmp_path)
    with pytest.raises(RunError, match="neither a run folder"):
        sdk.predict(np.zeros((8, 8, 3), np.uint8), "no_such_model")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(run.weights_file.read_bytes()[:1000])
    with pytest.raises(RunError, match="not a readable safetensors file"):
        load_weights(broken)
    save_file({"a": torch.zeros(1)}, broken)
    with pytest.raises(RunError, match="neither its model nor its classes"):
        load_weights(broken)
    state = load_file(run.weights_file)
    del state["bbox_head.retina_cls.bias"]
    metadata = {"model": "retinanet_tiny_shapes", "classes": json.dumps(list(run.classes))}
    save_file(state, broken, metadata)
    with pytest.raises(RunError, match=r"1 missing: bbox_head.retina_cls.bias"):
        load_weights(broken)
    save_file(load_file(run.weights_file), broken, {**metadata, "preprocessing": "[]", "needs": "[]"})
    with pytest.raises(RunError, match="preprocessing cannot be read"):
        load_weights(broken)
    (tmp_path / "last.pt").write_bytes(b"nothing")
    with pytest.raises(RunError, match="not a readable training state"):
        load_training_state(tmp_path / "last.pt")


def test_a_training_state_runs_no_code(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"model": Hostile()}, tmp_path / "last.pt")
    with pytest.raises(RunError, match="not a readable training state"):
        load_training_state(tmp_path / "last.pt")
    assert not (tmp_path / "ran").exists()


def test_predictions_file_scores_as_the_detector_does(run, folder, tmp_path):
    """The same detections by way of a COCO results file give the same figures."""
    dataset = sdk.datasets.Coco(folder).val
    report = sdk.evaluate(dataset, run, workers=0, out=tmp_path / "report")
    entries = []
    for index in range(len(dataset)):
        found = sdk.predict(dataset.path(index), run)
        for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist()):
            x1, y1, x2, y2 = box
            entries.append(
                {
                    "image_id": dataset[index].image_id,
                    "category_id": dataset.category_ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": score,
                }
            )
    path = tmp_path / "results.json"
    path.write_text(json.dumps(entries))
    again = sdk.evaluate(dataset, path)
    assert again.counts.detections == report.counts.detections > 0
    for name, value in report.metrics.items():
        assert again[name] == pytest.approx(value.value), name
    page = (tmp_path / "report/report.html").read_text()
    assert report.protocol.split(",")[0] in page
    assert "data:image/" in page
    with pytest.raises(RunError, match="no such file"):
        sdk.evaluate(dataset, tmp_path / "none.json")


def test_the_validation_split_is_taken_and_named(run, folder, capsys):
    assert sdk.evaluate(sdk.datasets.Coco(folder), run, workers=0).counts.images == 2
    assert "val is taken (2 images)" in capsys.readouterr().err
    assert sdk.evaluate(sdk.datasets.Coco(folder, split="train"), run, workers=0).counts.images == 8


def test_folders_are_recognized(folder, tmp_path):
    assert type(open_dataset(str(folder))).__name__ == "Coco"
    assert type(open_dataset(f"coco:{folder}")).__name__ == "Coco"
    assert len(open_dataset("shapes:12")) == 12
    with pytest.raises(SdkError, match="no layout that is known"):
        open_dataset(str(tmp_path))
    with pytest.raises(SdkError, match="no such folder"):
        open_dataset("coco:nowhere")


def test_command_line(run, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["--epochs", "1", "--workers", "0", "--out", "run"]
    assert cli.main(["fit", str(folder), "retinanet_tiny_shapes", *common]) == 0
    assert cli.main(["fit", str(folder), "retinanet_tiny_shapes", *common]) == 1
    assert "holds a run" in capsys.readouterr().err
    assert cli.main(["evaluate", str(folder), "run", "--workers", "0", "--split", "train"]) == 0
    told = capsys.readouterr()
    assert "8 images" in told.out
    assert "bbox/AP50" in told.out
    image = str(sdk.datasets.Coco(folder).path(0))
    assert cli.main(["predict", image, "--model", "run", "--score-threshold", "0", "--out", "drawn"]) == 0
    assert image in capsys.readouterr().out
    (tmp_path / "photos/inside").mkdir(parents=True)
    (tmp_path / "photos/bad.jpg").write_text("no image")
    Image.open(image).save(tmp_path / "photos/inside/good.png")
    assert cli.main(["predict", "photos", "--model", "run", "--recursive", "--batch-size", "2"]) == 0
    told = capsys.readouterr()
    assert "photos/inside/good.png" in told.out
    assert "1 of 2 images could not be read" in told.err
    assert cli.main(["predict", "photos", "--model", "run", "--on-fault", "raise"]) == 1
    assert "photos/bad.jpg: not an image" in capsys.readouterr().err
    data = str(sdk.datasets.Coco(folder).val.path(0).parent)
    for out in ("found.parquet", "found.json", "yolo:labels"):
        assert cli.main(["predict", data, "--model", "run", "--out", out, "--classes", "circle", "cross"]) == 0
        told = capsys.readouterr()
        assert told.out == ""
        assert "2 images" in told.err
    assert cli.main(["predict", data, "--model", "run", "--out", "found.json"]) == 1
    assert "found.json: is there already" in capsys.readouterr().err
    assert json.loads((tmp_path / "found.json").read_text()) == []
    assert len(list((tmp_path / "labels").glob("*.txt"))) == 2
    assert cli.main(["evaluate", str(folder), "found.parquet"]) == 0
    assert "bbox/AP50" in capsys.readouterr().out
    assert cli.main(["check", str(folder)]) == 0
    assert "circle" in capsys.readouterr().out
    assert cli.main(["zoo", "retinanet_tiny*"]) == 0
    assert "retinanet_tiny_shapes" in capsys.readouterr().out
    assert cli.main(["zoo", "retinanet_tiny_shapes"]) == 0
    assert "images per device: 8" in capsys.readouterr().out
    assert cli.main(["zoo", "nothing"]) == 1
    assert cli.main(["doctor", "--no-database"]) == 0
    told = capsys.readouterr().out
    assert torch.__version__.split("+")[0] in told
    assert "ops on cpu" in told
    assert cli.main(["evaluate", "nowhere", "run"]) == 1
    assert "sdk evaluate: nowhere: no such folder" in capsys.readouterr().err


def test_a_folder_of_results_is_scored(shared, folder, tmp_path, capsys):
    """Every object found where it is, in the devkit's own files."""
    root = shared / "data/voc_100"
    dataset = sdk.datasets.Voc(root)
    (tmp_path / "results").mkdir()
    for index in range(len(dataset)):
        sample = dataset[index]
        for label, (x1, y1, x2, y2) in zip(sample.labels, sample.boxes.tolist()):
            with open(tmp_path / "results" / f"comp4_det_val_{dataset.classes[label]}.txt", "a") as file:
                file.write(f"{sample.image_id} 1.0 {x1 + 1} {y1 + 1} {x2} {y2}\n")
    assert cli.main(["evaluate", f"voc:{root}", str(tmp_path / "results"), "--out", str(tmp_path / "report")]) == 0
    assert re.search(r"bbox/mAP50 +1\.0000", capsys.readouterr().out)
    assert (tmp_path / "report/report.html").is_file()
    assert cli.main(["evaluate", str(folder), str(tmp_path / "results")]) == 1
    assert "CocoEvaluator reads no folders of results" in capsys.readouterr().err


def test_what_the_command_line_explores(folder, tmp_path, monkeypatch, capsys):
    """Only how the words become arguments; that the App opens is tested with a database."""
    asked = []

    class Session:
        def wait(self, seconds):
            asked.append(seconds)

    def explore(dataset, what, **settings):
        asked.append((len(sdk.open(dataset).val), what, settings))
        return Session()

    monkeypatch.setattr(import_module("sdk.verbs.explore"), "explore", explore)
    monkeypatch.chdir(tmp_path)
    odd = tmp_path / "lr=0.1.json"
    odd.write_text("[]")
    for given, wanted in (
        ([], None),
        (["runs/a"], "runs/a"),
        (["lr=0.1.json"], "lr=0.1.json"),
        (["mine=runs/a"], {"mine": "runs/a"}),
        (["runs/a", "large=b.json", str(odd)], {"a": "runs/a", "large": "b.json", "lr=0.1": str(odd)}),
    ):
        assert cli.main(["explore", str(folder), *given, "--split", "val", "--port", "5999"]) == 0
        (images, what, settings), wait = asked[-2:]
        assert (images, what, wait) == (2, wanted, -1)
        assert settings["split"] == "val"
        assert (settings["address"], settings["port"]) == ("127.0.0.1", 5999)
    assert cli.main(["explore", str(folder), "a/results.json", "b/results.json"]) == 1
    assert "results: names a/results.json and b/results.json" in capsys.readouterr().err
