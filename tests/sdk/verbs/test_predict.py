"""Prediction: what holds an image, streams, and images that cannot be read."""

from __future__ import annotations

import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import sdk
from sdk.datasets import DatasetError, Shapes
from sdk.errors import SdkError
from sdk.inference.prediction import Prediction


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [sample.image for sample in map(Shapes(12, size=(64, 64)).__getitem__, range(12))]


@pytest.fixture
def detector(tiny):
    made = tiny(seed=1)
    made.test.score_threshold = 0.0
    return made


@pytest.fixture
def folder(tmp_path, images) -> Path:
    """0.png ... 3.png, and b/4.png, b/c/5.png below."""
    for number, image in enumerate(images[:6]):
        place = tmp_path / "images" / ["", "", "", "", "b", "b/c"][number]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    return tmp_path / "images"


def same(found: Prediction, expected: Prediction) -> None:
    # Batches and the copy that is made for several images round differently.
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-3, atol=1e-2)


def test_a_stream_gives_what_a_list_does(detector, folder):
    expected = sdk.predict(folder, detector, batch_size=3)
    stream = sdk.predict(folder, detector, batch_size=3, stream=True)
    found = list(stream)
    assert [one.path for one in found] == [one.path for one in expected] == sorted(folder.glob("*.png"))
    for one, other in zip(found, expected):
        assert len(one)
        assert torch.equal(one.scores, other.scores)
    assert stream.faults == expected.faults == []


def test_a_stream_holds_few_images(detector, images):
    """Whatever was used is free, and only the batches that are read meanwhile are asked for."""
    given: list[weakref.ref] = []

    def endless():
        while True:
            image = images[len(given) % 12].copy()
            # What is handed out is a copy of this; that it is freed is seen at the predictions.
            given.append(weakref.ref(image))
            yield image

    made: list[weakref.ref] = []
    with sdk.predict(endless(), detector, stream=True, batch_size=2) as stream:
        for count, prediction in enumerate(stream, start=1):
            made.append(weakref.ref(prediction))
            assert len(given) <= count + 3 * 2
            if count == 40:
                break
    del prediction
    assert sum(one() is not None for one in given) <= 1
    assert sum(one() is not None for one in made) == 0
    with pytest.raises(StopIteration):
        next(stream)


def test_images_of_an_iterator_may_share_memory(detector, images):
    def through_one_array():
        buffer = np.zeros_like(images[0])
        for image in images:
            buffer[:] = image
            yield buffer

    for one, other in zip(sdk.predict(through_one_array(), detector), sdk.predict(images, detector), strict=True):
        assert torch.equal(one.scores, other.scores)


def test_bad_files_of_a_folder_are_left_out_and_named(detector, tmp_path, images, capsys):
    """As many good and bad ones as there are, whatever the batches are."""
    for number in range(40):
        if number % 5:
            cv2.imwrite(str(tmp_path / f"{number:02}.png"), images[number % 12])
        else:
            (tmp_path / f"{number:02}.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (tmp_path / "40.jpg").symlink_to(tmp_path / "nowhere.jpg")
    good = [f"{number:02}" for number in range(40) if number % 5]
    bad = [str(tmp_path / name) for name in sorted({p.name for p in tmp_path.iterdir()} - {f"{n}.png" for n in good})]
    for stream in (False, True):
        predictions = sdk.predict(tmp_path, detector, batch_size=3, stream=stream)
        assert [one.image_id for one in predictions] == good
        assert [fault.file for fault in predictions.faults] == bad
        assert predictions.faults[0].kind == "image file is truncated"
        assert predictions.faults[-1].kind == "file is missing"
        told = capsys.readouterr().err
        assert bad[0] in told
        assert "9 of 41 images could not be read" in told
    with pytest.raises(DatasetError, match=r"00\.png.*truncated"):
        sdk.predict(tmp_path, detector, on_fault="raise")
    nothing = tmp_path / "bad"
    nothing.mkdir()
    (nothing / "a.png").write_bytes(b"")
    assert sdk.predict(nothing, detector) == []


def test_what_was_named_raises(detector, tmp_path, images):
    bad = [images[0], tmp_path / "none.png", np.zeros((4, 4, 2), np.uint8), images[1]]
    with pytest.raises(DatasetError, match=r"none\.png"):
        sdk.predict(bad, detector)
    with pytest.raises(DatasetError, match=r"none\.png"):
        list(sdk.predict(iter(bad), detector, stream=True))
    with pytest.raises(DatasetError, match=r"none\.png"):
        sdk.predict(tmp_path / "none.png", detector, on_fault="skip")
    found = sdk.predict(bad, detector, on_fault="skip", batch_size=2)
    assert [one.image_id for one in found] == ["000000", "000003"]
    assert [fault.file for fault in found.faults] == [str(tmp_path / "none.png"), None]
    assert "found (4, 4, 2)" in found.faults[1].kind
    with pytest.raises(ValueError, match="on_fault: expected skip or raise, found 'warn'"):
        sdk.predict(bad, detector, on_fault="warn")  # type: ignore[arg-type]


def test_folders_inside_and_patterns(detector, folder):
    def ids(*arguments, **options):
        return [one.image_id for one in sdk.predict(*arguments, detector, stream=True, **options)]

    assert ids(folder) == ["0", "1", "2", "3"]
    assert ids(folder, recursive=True) == ["0", "1", "2", "3", "b/4", "b/c/5"]
    assert ids(f"{folder}/[12].*") == ["1", "2"]
    assert ids(f"{folder}/b/**/*") == ["4", "c/5"]
    assert ids([folder / "b", f"{folder}/0*"]) == ["4", "0"]
    with pytest.raises(SdkError, match="no image fits this pattern"):
        ids(f"{folder}/*.gif")
    (folder / "d/e").mkdir(parents=True)
    with pytest.raises(SdkError, match="recursive=True"):
        ids(folder / "d")
    (folder / "[x].png").write_bytes((folder / "0.png").read_bytes())
    assert ids(f"{folder}/[x].png") == ["[x]"]


def test_pictures_are_not_taken_for_images(detector, folder):
    sdk.predict(folder, detector, recursive=True, out=folder / "drawn")
    assert sorted(path.relative_to(folder / "drawn").as_posix() for path in (folder / "drawn").rglob("*.png")) == [
        *("0.png", "1.png", "2.png", "3.png", "b/4.png", "b/c/5.png")
    ]
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    with pytest.raises(SdkError, match="images are read from this folder"):
        sdk.predict(folder, detector, recursive=True, out=folder / "drawn")
    assert {path for path in folder.rglob("*.png") if path.parts[-2] != "drawn"} <= before.keys()


@pytest.mark.parametrize(
    "address", ["https://example.org/a.jpg", "s3://bucket/a.jpg", Path("http://example.org/a.jpg")]
)
def test_addresses_are_refused(detector, address):
    with pytest.raises(SdkError, match="is an address; fetch it first"):
        sdk.predict(address, detector)


def test_every_kind_of_array(detector, images):
    color = images[0]
    expected = sdk.predict(color, detector)
    opaque = np.dstack([color, np.full((64, 64, 1), 9, np.uint8)])
    content = cv2.imencode(".png", color[:, :, ::-1])[1].tobytes()
    kinds = [color / 255, (color / 255).astype(np.float32), opaque, content, bytearray(content), memoryview(content)]
    kinds += [torch.from_numpy(opaque).permute(2, 0, 1), torch.from_numpy(color).permute(2, 0, 1).double() / 255]
    for kind in kinds:
        assert torch.equal(sdk.predict(kind, detector).scores, expected.scores), type(kind)
    assert torch.equal(sdk.predict(color[:, :, ::-1], detector, bgr=True).scores, expected.scores)
    assert torch.equal(sdk.predict(opaque[:, :, [2, 1, 0, 3]], detector, bgr=True).scores, expected.scores)
    gray = color[:, :, 0]
    expected = sdk.predict(np.repeat(gray[:, :, None], 3, axis=2), detector)
    for kind in (gray, gray[:, :, None], torch.from_numpy(gray)[None], Image.fromarray(gray)):
        assert torch.equal(sdk.predict(kind, detector).scores, expected.scores), type(kind)
    batch = sdk.predict(np.stack(images[:2]), detector)
    assert len(batch) == 2
    for one, image in zip(batch, images):
        same(one, sdk.predict(image, detector))


def test_images_of_any_size(detector):
    for size in ((1, 1), (1, 3000), (3000, 1), (2, 5)):
        found = sdk.predict(np.full((*size, 3), 80, np.uint8), detector)
        assert bool(torch.isfinite(found.boxes).all())


def test_a_dataset(detector, tmp_path, images):
    dataset = Shapes(6, size=(64, 64))
    written = sdk.datasets.Coco(dataset.write_coco(tmp_path / "data"))
    found = sdk.predict(written, detector)
    assert [one.image_id for one in found] == [written.val[index].image_id for index in range(len(written.val))]
    assert found[0].path == written.val.path(0)
    same(found[0], sdk.predict(written.val.path(0), detector))
    # It says the ids of the labels that the detector does not know.
    assert found[0].category_ids == written.category_ids
    assert sdk.predict(written.val.path(0), detector).category_ids is None
    assert np.array_equal(found[0].image, written.val[0].image)
    assert found[0].size == (64, 64)
    drawn = Shapes(24, size=(64, 64)).val
    shown = list(sdk.predict(drawn, detector, stream=True))
    assert [one.image_id for one in shown] == [drawn[index].image_id for index in range(6)]
    same(shown[1], sdk.predict(drawn[1].image, detector))


def test_sequences_within_sequences(detector, images, folder):
    batch = torch.from_numpy(np.stack(images[:2])).permute(0, 3, 1, 2)
    found = sdk.predict([batch, [images[2], folder], (image for image in images[:2])], detector)
    assert [one.image_id for one in found] == ["000000", "000001", "000002", "0", "1", "2", "3", "000007", "000008"]
    assert sdk.predict([], detector) == []
    assert list(sdk.predict(iter([]), detector, stream=True)) == []
    with pytest.raises(SdkError, match="expected a path, an array"):
        sdk.predict({"a.png": images[0]}, detector)


def test_what_fails_in_an_iterator_is_raised(detector, images):
    def failing():
        yield images[0]
        raise RuntimeError("camera unplugged")

    stream = sdk.predict(failing(), detector, stream=True)
    with pytest.raises(RuntimeError, match="camera unplugged"):
        list(stream)


@pytest.mark.parametrize("ending", [".json", ".parquet"])
def test_what_is_written_scores_as_the_detector_does(detector, tmp_path, ending):
    dataset = sdk.datasets.Coco(Shapes(24, size=(64, 64)).write_coco(tmp_path / "data")).val
    report = sdk.evaluate(dataset, detector, workers=0)
    path = tmp_path / f"results{ending}"
    for _ in sdk.predict(dataset, detector, stream=True, out=path):
        assert not path.exists()
    again = sdk.evaluate(dataset, path)
    assert again.counts.detections == report.counts.detections > 0
    for name, value in report.metrics.items():
        assert again[name] == pytest.approx(value.value), name
    with pytest.raises(SdkError, match="is there already"):
        sdk.predict(dataset, detector, out=path)


def test_file_names_are_image_ids(detector, tmp_path):
    """A folder of images is scored where the files are called as the images are."""
    dataset = sdk.datasets.Coco(Shapes(24, size=(64, 64)).write_coco(tmp_path / "data")).val
    (tmp_path / "images").mkdir()
    for index in range(len(dataset)):
        name = f"{dataset[index].image_id:012}{dataset.path(index).suffix}"
        (tmp_path / "images" / name).write_bytes(dataset.path(index).read_bytes())
    detector.category_ids = dataset.category_ids
    sdk.predict(tmp_path / "images", detector, out=tmp_path / "results.json")
    expected = sdk.evaluate(dataset, detector, workers=0)
    report = sdk.evaluate(dataset, tmp_path / "results.json")
    for name, value in expected.metrics.items():
        assert report[name] == pytest.approx(value.value), name


def test_a_stream_that_is_left_early_leaves_an_unfinished_file(detector, images, tmp_path):
    with sdk.predict(images, detector, stream=True, out=tmp_path / "found.jsonl") as stream:
        next(stream)
        next(stream)
    assert [path.name for path in tmp_path.iterdir()] == ["found.jsonl.part"]
    assert len((tmp_path / "found.jsonl.part").read_text().splitlines()) == 2


def test_classes_are_kept_by_name(detector, images, tmp_path):
    with pytest.raises(SdkError, match="no class 'cross'; the detector's are not known by name"):
        sdk.predict(images, detector, classes=["cross"])
    detector.classes = ("circle", "square", "triangle", "cross")
    every = sdk.predict(images[0], detector)
    found = sdk.predict(images[0], detector, classes=["cross", "circle"])
    assert set(found.names) == {"cross", "circle"}
    assert len(found) == sum(name in ("cross", "circle") for name in every.names) < len(every)
    with pytest.raises(SdkError, match="no class 'dog'; the detector's are circle, square, triangle, cross"):
        sdk.predict(images, detector, classes=["cross", "dog"])
    with pytest.raises(SdkError, match="expected several names"):
        sdk.predict(images, detector, classes="cross")
