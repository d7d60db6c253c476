import cv2
import numpy as np
import pytest
from coco_files import tiny_coco, write_coco
from PIL import Image

from sdk.datasets import Coco, DatasetError, ImageInfo, Sample, Voc
from sdk.datasets.checking import check
from sdk.datasets.errors import DatasetWarning


def kinds(report) -> list[str]:
    return sorted(fault.kind for fault in report.faults)


def test_known_faults_of_a_real_dataset(shared):
    report = check(Voc(shared / "data" / "bccd", split="trainval"))
    flat = report.of_kind("box without area")
    assert [fault.where.split()[1] for fault in flat] == ["BloodImage_00338", "BloodImage_00343"]
    assert all("JPEGImages" in fault.file for fault in flat)
    assert not report.ok
    assert sum(count.objects for count in report.classes.values()) == report.annotations == 3943
    for count in report.classes.values():
        assert sum(count.by_size.values()) == count.objects
    assert "2 x box without area" in str(report)


def test_a_clean_dataset_has_notes_only(coco_folder):
    report = check(Coco(coco_folder), decode=True)
    assert report.ok
    assert kinds(report) == ["image without objects"]
    assert (report.images, report.annotations, report.images_without_objects) == (3, 3, 1)
    assert report.classes["dog"].objects == 1
    assert report.classes["dog"].ignored == 1
    assert report.classes["cat"].by_size == {"small": 1, "medium": 0, "large": 0}


def faulty() -> dict:
    content = tiny_coco()
    content["annotations"] += [
        {"id": 10, "image_id": 3, "category_id": 2, "bbox": [50, 10, 20, 10]},
        {"id": 11, "image_id": 3, "category_id": 2, "bbox": [80, 10, 20, 10]},
        {"id": 12, "image_id": 3, "category_id": 2, "bbox": [10, 10, 0, 10]},
        {"id": 13, "image_id": 3, "category_id": 2, "bbox": [1.5, 2.5, 30, 20]},
        {"id": 14, "image_id": 3, "category_id": 77, "bbox": [1, 2, 30, 20]},
    ]
    return content


def test_every_kind_and_every_mode(tmp_path):
    write_coco(tmp_path, faulty())
    with pytest.warns(DatasetWarning):
        dataset = Coco(tmp_path, on_fault="skip")
    report = check(dataset)
    assert kinds(report) == [
        "box outside the image",
        "box partly outside the image",
        "box without area",
        "image without objects",
        "object annotated twice",
        "unknown category",
    ]
    for fault in report.faults:
        assert fault.level == "note" or "annotation 1" in fault.where
        assert fault.file
    with pytest.raises(DatasetError, match="unknown category"):
        check(dataset, mode="raise")
    skipped, repaired = check(dataset, mode="skip").dataset, check(dataset, mode="repair").dataset
    assert skipped[1].boxes.tolist() == [[1.5, 2.5, 31.5, 22.5]]
    assert repaired[1].boxes.tolist() == [[1.5, 2.5, 31.5, 22.5], [50, 10, 60, 20]]
    assert skipped.annotations.annotation_ids.tolist() == [1, 3, 2]
    assert repaired.info(1).labels.tolist() == [0, 0]
    assert check(skipped).ok
    assert skipped.fingerprint != repaired.fingerprint
    with pytest.raises(ValueError, match="mode"):
        check(dataset, mode="fix")


def test_image_files(coco_folder):
    files = [coco_folder / "train" / f"{number}.png" for number in (7, 3, 12)]
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-20])
    cv2.imwrite(str(files[2]), np.zeros((41, 60, 3), np.uint8))
    report = check(Coco(coco_folder), mode="skip")
    assert {f.kind for f in report.faults if f.level == "error"} == {
        "file is missing",
        "image file is truncated",
        "image size differs from the annotated one",
    }
    assert len(report.dataset) == 0
    for fault, file in zip([f for f in report.faults if f.level == "error"], files):
        assert fault.file == str(file)


def test_damage_inside_a_file_is_found_by_decoding(coco_folder):
    file = coco_folder / "train" / "7.png"
    data = bytearray(file.read_bytes())
    data[200:220] = bytes(20)
    file.write_bytes(bytes(data))
    assert check(Coco(coco_folder)).ok
    assert not check(Coco(coco_folder), decode=True).ok


def test_exif_rotation_is_noted_and_read_as_annotated(coco_folder):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(coco_folder / "train" / "7.png", exif=exif)
    dataset = Coco(coco_folder)
    report = check(dataset)
    assert [fault.found for fault in report.of_kind("EXIF rotation")] == ["6"]
    # The annotations say 40 x 60, the size as stored: turned, it would be 60 x 40.
    np.testing.assert_array_equal(dataset[0].image, pixels)
    content = tiny_coco()
    content["images"][0].update(height=60, width=40)
    content["annotations"] = content["annotations"][:2]
    write_coco(coco_folder, content)
    Image.fromarray(pixels).save(coco_folder / "train" / "7.png", exif=exif)
    np.testing.assert_array_equal(Coco(coco_folder)[0].image, np.rot90(pixels, -1))


def test_the_same_image_in_two_splits(coco_folder):
    write_coco(coco_folder, tiny_coco(), "val")
    report = check(Coco(coco_folder))
    assert len(report.of_kind("image in more than one split")) == 3


def test_a_split_that_cannot_be_opened_is_a_fault(coco_folder):
    (coco_folder / "annotations" / "instances_val.json").write_text('{"images": []')
    report = check(Coco(coco_folder))
    assert not report.ok
    assert any("instances_val" in (fault.file or "") for fault in report.faults)


class Own:
    """A dataset of the user's own, with what is given as its only sample."""

    classes, category_ids, fingerprint = ("a", "b"), (1, 2), "x"

    def __init__(self, **changes) -> None:
        values = {
            "image": np.zeros((20, 30, 3), np.uint8),
            "boxes": np.array([[1, 2, 10, 12]], np.float32),
            "labels": np.array([1]),
            "ignore": np.zeros(1, bool),
            "image_id": "one",
        }
        self.sample = Sample(**{**values, **changes})

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return self.sample

    def info(self, index: int) -> ImageInfo:
        return ImageInfo("one", (20, 30), self.sample.labels)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, None),
        ({"boxes": np.zeros((1, 4), np.float32)}, "box without area"),
        ({"boxes": np.full((1, 4), np.nan, np.float32)}, "box is not finite"),
        ({"boxes": np.array([[100, 100, 200, 200]], np.float32)}, "box outside the image"),
        ({"boxes": np.zeros((2, 4), np.float32)}, "sample breaks the contract"),
        ({"labels": np.array([2])}, "unknown category"),
        ({"labels": np.array([0.5])}, "sample breaks the contract"),
        ({"image": np.zeros((20, 30, 3), np.float32)}, "sample breaks the contract"),
        ({"image": np.zeros((20, 31, 3), np.uint8)}, "info and sample differ in size"),
        ({"ignore": np.zeros(3, bool)}, "sample breaks the contract"),
    ],
)
def test_a_dataset_of_ones_own(changes, kind):
    report = check(Own(**changes), mode="repair")
    assert kinds(report) == ([] if kind is None else [kind])
    for index in range(len(report.dataset)):
        cleaned = report.dataset[index]
        assert np.isfinite(cleaned.boxes).all()
        assert (cleaned.labels < 2).all()
