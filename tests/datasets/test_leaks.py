import cv2
import numpy as np
import pytest
from coco_files import tiny_coco, write_coco

from sdk.datasets import Coco
from sdk.datasets.base import ImageInfo
from sdk.datasets.checking import check
from sdk.datasets.leaks import aligned_similarity, duplicate_groups, equal_files, find_leaks, near_hashes


class Pictures:
    """Files as a dataset; the labels of each by its name, where it has any."""

    classes, category_ids, fingerprint = ("cat", "dog"), (1, 2), ""

    def __init__(self, files, labels=None):
        self.files, self.labels = list(files), labels or {}

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        raise AssertionError("files are enough")

    def info(self, index):
        file = self.files[index]
        return ImageInfo(file.stem, (0, 0), np.array(self.labels.get(file.stem, []), np.int64), str(file))

    def evaluator(self):
        raise NotImplementedError


def picture(seed, size=(150, 200)):
    """(H, W, 3) uint8 with structure of all widths, as photographs have."""
    rng = np.random.default_rng(seed)
    layers = [cv2.resize(rng.normal(size=(n, n, 3)), size[::-1], interpolation=cv2.INTER_CUBIC) for n in (3, 6, 12, 24)]
    return np.clip(128 + 30 * sum(layers), 0, 255).astype(np.uint8)


def write(file, image, quality=95):
    cv2.imwrite(str(file), image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return file


CHANGES = {
    "encoded": lambda image: image,
    "resized": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "cropped": lambda image: image[10:, 8:-9],
    "mirrored": lambda image: image[:, ::-1],
    "brighter": lambda image: np.clip(image * 1.2 + 15.0, 0, 255).astype(np.uint8),
    "a frame later": lambda image: np.roll(image, 2, 1),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_pictures_are_found_and_nothing_else(tmp_path, name):
    originals = [write(tmp_path / f"{i}.jpg", picture(i)) for i in range(12)]
    planted = [write(tmp_path / f"{i}-again.jpg", CHANGES[name](picture(i)), quality=70) for i in (3, 8)]
    pairs = find_leaks({"train": Pictures(originals), "val": Pictures(planted)})
    assert {(pair.first.image_id, pair.second.image_id) for pair in pairs} == {("3", "3-again"), ("8", "8-again")}
    assert all(pair.kind == "near duplicate" and pair.between_splits for pair in pairs)
    assert {pair.mirrored for pair in pairs} == {name == "mirrored"}


def test_equal_files_within_and_between(tmp_path):
    files = [write(tmp_path / f"{i}.jpg", picture(i)) for i in range(4)]
    copy, same = tmp_path / "copy.jpg", tmp_path / "same.jpg"
    copy.write_bytes(files[1].read_bytes())
    same.write_bytes(files[2].read_bytes())
    # Equal in size and at both ends, and yet another file.
    other = bytearray(b"x" * 20_000)
    (tmp_path / "a.jpg").write_bytes(other)
    other[10_000] = 0
    (tmp_path / "b.jpg").write_bytes(other)
    labels = {"1": [0], "copy": [1], "2": [0, 1], "same": [1, 0]}
    train = Pictures([*files, same, tmp_path / "a.jpg", tmp_path / "missing.jpg"], labels)
    val = Pictures([copy, tmp_path / "b.jpg"], labels)
    (pair,) = equal_files({"train": train, "val": val})
    assert (pair.first.image_id, pair.second.image_id, pair.same_labels) == ("1", "copy", False)
    assert pair.fault().kind == "image in more than one split, with other labels"
    both = equal_files({"train": train, "val": val}, within=True)
    assert {(p.first.image_id, p.second.image_id, p.same_labels) for p in both} == {
        ("1", "copy", False),
        ("2", "same", True),
    }


def test_chains_make_one_group_and_plain_pictures_none(tmp_path):
    first, second = picture(0), picture(1)
    files = [write(tmp_path / "a.jpg", first), write(tmp_path / "b.jpg", second)]
    files += [write(tmp_path / f"{i}.jpg", first[:, i:], quality=90 - i) for i in (4, 8)]
    files += [write(tmp_path / f"plain{i}.jpg", np.full((90, 90, 3), 100 + i, np.uint8)) for i in range(3)]
    groups = duplicate_groups(Pictures(files))
    assert groups[0] == groups[2] == groups[3]
    assert len(set(groups.tolist())) == 5


def test_hashes_by_brute_force():
    rng = np.random.default_rng(0)
    indexed = rng.integers(0, 2**64, 3000, dtype=np.uint64)
    flips = [sum(1 << int(bit) for bit in rng.permutation(64)[: rng.integers(0, 12)]) for _ in range(400)]
    queries = indexed[:400] ^ np.array(flips, np.uint64)
    found = {(int(a), int(b)) for q, n in near_hashes(queries, indexed, 7) for a, b in zip(q, n)}
    expected = {
        (a, b)
        for a, query in enumerate(queries.tolist())
        for b, other in enumerate(indexed.tolist())
        if (query ^ other).bit_count() <= 7
    }
    assert found == expected
    assert len(expected) > 100


def test_similarity_knows_its_window():
    image = cv2.cvtColor(picture(5, (640, 640)), cv2.COLOR_BGR2GRAY)
    small = lambda part: cv2.resize(part, (64, 64), interpolation=cv2.INTER_AREA)
    whole, full = small(image), ((0.0, 1.0), (0.0, 1.0))
    assert aligned_similarity(whole, whole, full) > 0.999
    assert aligned_similarity(small(image[32:, :608]), whole, ((0.0, 0.95), (0.05, 1.0))) > 0.95
    # A third of the picture is another picture.
    assert aligned_similarity(small(image[:, :420]), whole, full) < 0.9


def test_the_check_tells_and_draws_them(coco_folder, tmp_path, capsys):
    import sdk

    write_coco(coco_folder, tiny_coco(), "val")
    report = sdk.check(Coco(coco_folder), leaks=True, out=tmp_path / "pairs")
    between = [pair for pair in report.leaks if pair.between_splits]
    assert len(between) == 3
    assert len(report.of_kind("image in more than one split")) == 3
    assert len(list((tmp_path / "pairs").glob("*.png"))) == len(report.leaks)
    assert "drawn in" in capsys.readouterr().err


def test_equal_boxes_of_two_classes(coco_folder):
    content = tiny_coco()
    first = content["annotations"][0]
    other = {*range(1, 4)} & {c["id"] for c in content["categories"]} - {first["category_id"]}
    content["annotations"].append({**first, "id": 999, "category_id": other.pop()})
    write_coco(coco_folder, content)
    assert len(check(Coco(coco_folder), leaks=True).of_kind("equal boxes of two classes")) == 1
