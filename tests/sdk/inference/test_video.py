"""Films: their frames, numbers of objects, and films of detections."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch

import sdk
from sdk.datasets import DatasetError
from sdk.datasets.transforms import Preprocessing
from sdk.errors import SdkError
from sdk.inference.sources import Source
from sdk.inference.tracking import Tracking
from sdk.inference.video import FilmFile, frames
from sdk.inference.writing import part_of
from sdk.models.recipe import Recipe
from sdk.models.structures import Detections

COUNT = 12


class Squares(torch.nn.Module):
    """Finds bright squares: an object a connected area."""

    num_classes = 2
    classes = ("square", "none")
    category_ids = (5, 6)

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.recipe = Recipe("squares", Squares, document="", num_classes=2, preprocessing=Preprocessing(size=None))

    def predict(self, images) -> list[Detections]:
        found = []
        for pixels, size in zip(images.pixels, images.sizes):
            bright = (pixels[:, : size[0], : size[1]].mean(0) > 0.2).numpy().astype(np.uint8)
            _, _, stats, _ = cv2.connectedComponentsWithStats(bright)
            areas = [(x, y, x + w, y + h) for x, y, w, h, area in stats[1:].tolist() if area > 30]
            boxes = torch.tensor(areas, dtype=torch.float32).reshape(-1, 4)
            count = len(boxes)
            found.append(Detections(boxes, torch.linspace(0.95, 0.9, count), torch.zeros(count, dtype=torch.int64)))
        return found


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """Two squares that pass each other at some distance."""
    path = tmp_path_factory.mktemp("films") / "squares.avi"
    writer = FilmFile(path, 10.0, (64, 96))
    for number in range(COUNT):
        image = np.zeros((64, 96, 3), np.uint8)
        image[8:24, 4 + 4 * number : 20 + 4 * number] = 255
        image[40:56, 76 - 4 * number : 92 - 4 * number] = 255
        writer.add(image)
    writer.close()
    return path


def test_frames_are_images(film):
    found = sdk.predict(film, Squares())
    assert [one.image_id for one in found] == [f"squares/{number:06d}" for number in range(COUNT)]
    assert {one.path for one in found} == {film}
    shown = [frame.shown for frame in frames(film)]
    for number in (7, 0, 11):
        assert found[number].source is not None
        assert found[number].source.content.shown is None
        assert np.array_equal(found[number].image, shown[number])
        torch.testing.assert_close(found[number].boxes[0, 0].item(), 4.0 + 4 * number, atol=1.5, rtol=0)
    with sdk.predict([film, film], Squares(), stream=True, batch_size=5, tiles=(64, 0.5)) as stream:
        assert len(list(stream)) == 2 * COUNT


def test_objects_keep_their_numbers(film, tmp_path):
    found = sdk.predict(film, Squares(), track=True, out=tmp_path / "found.json")
    followed = found[3:]
    for one in followed:
        assert one.track_ids is not None
        upper = one.boxes[:, 1] < 32
        assert one.track_ids[upper].tolist() == followed[0].track_ids[followed[0].boxes[:, 1] < 32].tolist()
        assert len(set(one.track_ids.tolist())) == 2
        assert (one.track_ids >= 0).all()
        assert one[one.scores > 0.92].track_ids.tolist() == one.track_ids[one.scores > 0.92].tolist()
        assert one.to_supervision().tracker_id.tolist() == one.track_ids.tolist()
        assert one.to_pandas()["track_id"].tolist() == one.track_ids.tolist()
    entries = json.loads((tmp_path / "found.json").read_text())
    numbers = [number for one in found for number in one.tracks()]
    assert [entry["track_id"] for entry in entries] == numbers
    for ending in ("jsonl", "csv", "parquet"):
        sdk.predict(film, Squares(), track=True, out=tmp_path / f"found.{ending}")
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [one["track_id"] for line in lines for one in line["objects"]] == numbers
    with open(tmp_path / "found.csv", newline="") as file:
        assert [int(row["track_id"] or -1) for row in csv.DictReader(file)] == [-1 if n is None else n for n in numbers]
    assert parquet.read_table(tmp_path / "found.parquet")["track_id"].to_pylist() == numbers
    sdk.predict(film, Squares(), track=True, out=f"yolo:{tmp_path}/labels")
    last = (tmp_path / "labels/squares/000011.txt").read_text().split("\n")[0].split()
    assert int(last[6]) == found[11].tracks()[0]
    # Of another film they begin anew.
    twice = sdk.predict([film, film], Squares(), track=True)
    assert [one.tracks() for one in twice] == 2 * [one.tracks() for one in found]
    assert "track_id" not in sdk.predict(film, Squares())[0].to_dict()["objects"][0]


def test_a_film_of_detections(film, tmp_path):
    out = tmp_path / "drawn.mp4"
    found = sdk.predict(film, Squares(), track=True, draw=True, out=out, draw_threshold=0.5)
    assert not part_of(out).exists()
    drawn = list(frames(out))
    assert len(drawn) == COUNT
    assert drawn[0].rate == pytest.approx(10.0)
    for frame, one in zip(drawn, found):
        assert frame.shown is not None
        # The film is compressed with losses.
        assert np.abs(frame.shown.astype(float) - one.drawn).mean() < 8
        assert np.abs(one.drawn.astype(float) - one.image).mean() > 8
    with pytest.raises(SdkError, match="is there already"):
        sdk.predict(film, Squares(), out=out)
    sizes = [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 32, 3), np.uint8)]
    with pytest.raises(SdkError, match="frames of one size make a film; found 32 x 64 after 64 x 64"):
        sdk.predict(sizes, Squares(), out=tmp_path / "mixed.mp4")
    with pytest.raises(SdkError, match="there was no image"):
        sdk.predict([], Squares(), out=tmp_path / "none.mp4")


def test_what_is_no_film_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"none\.mp4.*file is missing"):
        sdk.predict(tmp_path / "none.mp4", Squares())
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(DatasetError, match=r"text\.mp4.*not a film that can be decoded"):
        sdk.predict(tmp_path / "text.mp4", Squares())
    with pytest.raises(SdkError, match="camera 97: cannot be opened"):
        sdk.predict(97, Squares())


def test_a_tracker_of_ones_own():
    trackers = pytest.importorskip("trackers")
    tracking = Tracking(trackers.SORTTracker(minimum_consecutive_frames=1))
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 70, 70]])
    one = Detections(boxes, torch.tensor([0.9, 0.8]), torch.zeros(2, dtype=torch.int64))
    ids = [tracking.ids(Source(None), one).tolist() for _ in range(4)]
    assert ids[2] == ids[3]
    assert len(set(ids[3]) - {-1}) == 2
    assert tracking.ids(Source(None), one[:0]).shape == (0,)
