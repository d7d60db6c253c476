"""What a prediction says of itself."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from PIL import Image

from sdk.errors import DatasetError, SdkError
from sdk.inference.prediction import Prediction
from sdk.inference.sources import Source


def test_a_prediction_is_short_and_plain():
    boxes = torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 8]])
    made = Prediction(boxes, torch.tensor([0.75, 0.5]), torch.tensor([1, 0]), classes=("<b>", "cat"))
    assert repr(made) == "Prediction(2 objects: 1 cat, 1 <b>)"
    assert made.to_dict()["objects"][0] == {"class": "cat", "score": 0.75, "box": [0, 1, 2, 3]}
    assert made.to_pandas()[["class", "y2"]].values.tolist() == [["cat", 3], ["<b>", 8]]
    assert "<b>" not in made._repr_html_()
    assert repr(made[:0]) == "Prediction(0 objects)"


@pytest.fixture
def image(tmp_path) -> Path:
    pixels = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path / "image.png"


@pytest.fixture
def prediction(image) -> Prediction:
    """One object inside, one that begins before the image, one without area at its far corner."""
    boxes = torch.tensor([[1.5, 2.0, 4.25, 7.0], [-3.0, -2.0, 2.0, 1.0], [30.0, 20.0, 30.0, 20.0]])
    masks = torch.zeros(3, 20, 30, dtype=torch.bool)
    masks[0, 2:7, 2:4] = True
    return Prediction(
        boxes,
        torch.tensor([0.9, 0.5, 0.1]),
        torch.tensor([1, 0, 1]),
        masks,
        classes=("dog", "cat"),
        path=image,
        image_id="image",
        size=(20, 30),
        category_ids=(7, 30),
        source=Source(image, "image", image),
    )


def test_crops_lie_in_the_image(prediction):
    image = prediction.image
    first, second, third = prediction.crop()
    assert np.array_equal(first, image[2:7, 1:5])
    assert np.array_equal(second, image[:1, :2])
    assert third.shape == (1, 1, 3)


def test_coco_entries_say_the_same(prediction):
    entries = json.loads(json.dumps(prediction.to_coco()))
    assert [entry["category_id"] for entry in entries] == [30, 7, 30]
    assert {entry["image_id"] for entry in entries} == {"image"}
    assert prediction.to_coco(12)[0]["image_id"] == 12
    x, y, width, height = torch.tensor([entry["bbox"] for entry in entries]).unbind(1)
    assert torch.equal(torch.stack([x, y, x + width, y + height], 1), prediction.boxes)
    assert torch.equal(torch.tensor([entry["score"] for entry in entries]), prediction.scores)
    masks = [coco_mask.decode(entry["segmentation"]) for entry in entries]
    assert np.array_equal(np.stack(masks).astype(bool), prediction.masks.numpy())
    with pytest.raises(SdkError, match=r"nobody said the category ids .*dog, cat"):
        replace(prediction, category_ids=None).to_coco()


def test_a_dictionary_holds_all_of_it(prediction):
    told = json.loads(json.dumps(prediction.to_dict()))
    assert (told["image_id"], told["height"], told["width"]) == ("image", 20, 30)
    assert told["objects"][1]["box"] == [-3, -2, 2, 1]
    assert told["objects"][0]["category_id"] == 30
    assert coco_mask.area(told["objects"][0]["mask"]) == 10


def test_for_torchvision(prediction):
    found = prediction.to_torchvision()
    assert found["labels"].tolist() == [2, 1, 2]
    assert found["masks"].shape == (3, 1, 20, 30)
    assert found["masks"].sum() == 10
    assert "masks" not in replace(prediction, masks=None).to_torchvision()


def test_for_supervision(prediction, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        prediction.to_supervision()
    monkeypatch.undo()
    supervision = pytest.importorskip("supervision")
    found = prediction.to_supervision()
    assert isinstance(found, supervision.Detections)
    assert len(found) == 3
    assert found[found.confidence > 0.4]["class_name"].tolist() == ["cat", "dog"]
    assert np.array_equal(found.mask, prediction.masks.numpy())
    assert len(replace(prediction[:0], masks=None).to_supervision()) == 0


def test_pictures(prediction, image, tmp_path, monkeypatch):
    before = image.read_bytes()
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda self: shown.append(np.array(self)))
    prediction.show()
    assert np.array_equal(shown[0], prediction.draw())
    assert not np.array_equal(prediction.draw(), prediction.image)
    assert np.array_equal(prediction.draw(threshold=0.95), prediction.image)
    assert np.array_equal(np.array(Image.open(prediction.save(tmp_path / "drawn.png"))), prediction.draw())
    with pytest.raises(SdkError, match="is the image itself"):
        prediction.save(tmp_path / "." / "image.png")
    with pytest.raises(SdkError, match="no image format"):
        prediction.save(tmp_path / "drawn.txt")
    assert image.read_bytes() == before


def test_notebooks_show_picture_and_table(prediction, image):
    page = prediction._repr_html_()
    assert "data:image/jpeg" in page
    assert "<td>cat<td>0.900" in page
    image.unlink()
    page = prediction._repr_html_()
    assert "<img" not in page
    assert "<td>cat" in page
    with pytest.raises(DatasetError, match="file is missing"):
        prediction.show()
    with pytest.raises(SdkError, match="does not say what it is of"):
        replace(prediction, source=None).crop()


def test_a_part_says_the_same_of_its_image(prediction):
    part = prediction[prediction.scores > 0.4]
    assert part.names == ["cat", "dog"]
    assert (part.image_id, part.size, part.category_ids) == ("image", (20, 30), (7, 30))
    assert len(part.crop()) == 2
