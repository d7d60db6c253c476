"""An LVIS-shaped dataset of 100,000 images and 1.2 million annotations: time to open it, memory of the loader."""

import json
import os
import time

import cv2
import numpy as np
import pytest

from sdk.datasets import Loader, Lvis
from sdk.datasets.sampling import RepeatFactor

IMAGES, ANNOTATIONS, CLASSES = 100_000, 1_200_000, 1203


def write_lvis(folder) -> None:
    """All entries share one small image file; classes are as rare as in LVIS (Zipf)."""
    rng = np.random.default_rng(0)
    (folder / "train2017").mkdir()
    cv2.imwrite(str(folder / "train2017" / "a.jpg"), rng.integers(0, 256, (120, 160, 3), dtype=np.uint8))
    weights = 1 / np.arange(1, CLASSES + 1)
    categories = rng.choice(CLASSES, ANNOTATIONS, p=weights / weights.sum()) + 1
    owners = rng.integers(1, IMAGES + 1, ANNOTATIONS)
    corners = rng.uniform(0, 80, (ANNOTATIONS, 2)).round(2)
    outline = 20 + 20 * np.stack([np.cos(np.arange(16) * np.pi / 8), np.sin(np.arange(16) * np.pi / 8)], 1)
    with open(folder / "lvis_v1_train.json", "w") as stream:
        stream.write('{"images": [')
        for i in range(1, IMAGES + 1):
            entry = {"id": i, "height": 120, "width": 160, "coco_url": "http://x/train2017/a.jpg"}
            entry |= {"neg_category_ids": [1, 2], "not_exhaustive_category_ids": []}
            stream.write((", " if i > 1 else "") + json.dumps(entry))
        stream.write('], "categories": ')
        json.dump([{"id": i, "name": f"c{i}", "frequency": "f"} for i in range(1, CLASSES + 1)], stream)
        stream.write(', "annotations": [')
        for i in range(ANNOTATIONS):
            x, y = corners[i].tolist()
            polygon = (outline + corners[i]).round(2).reshape(-1).tolist()
            entry = {"id": i + 1, "image_id": int(owners[i]), "category_id": int(categories[i]), "area": 1256.0}
            entry |= {"bbox": [x, y, 40.0, 40.0], "segmentation": [polygon]}
            stream.write((", " if i else "") + json.dumps(entry))
        stream.write("]}")


def proportional_memory(pids) -> float:
    """MB that processes hold together; a page that n of them share counts once (PSS)."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as stream:
            total += sum(int(line.split()[1]) for line in stream if line.startswith("Pss:"))
    return total / 1024


def measure(dataset, workers: int) -> float:
    """MB of this process and its workers after they have read some thousand images from all over the dataset."""
    loader = Loader(dataset, batch_size=8, shuffle=True, workers=workers, sampler=RepeatFactor(0.001))
    for number, _ in enumerate(loader):
        if number == 600:
            children = [worker.pid for worker in loader._batches._iterator._workers]
            return proportional_memory([os.getpid(), *children])
    raise AssertionError("the epoch is too short")


@pytest.mark.long
def test_opening_and_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("SDK_CACHE", str(tmp_path / "cache"))
    write_lvis(tmp_path)
    start = time.perf_counter()
    dataset = Lvis(tmp_path)
    first = time.perf_counter() - start
    assert (len(dataset), len(dataset.annotations)) == (IMAGES, ANNOTATIONS)
    start = time.perf_counter()
    dataset = Lvis(tmp_path)
    dataset[IMAGES - 1].masks.decode()
    second = time.perf_counter() - start
    one, four = measure(dataset, 1), measure(dataset, 4)
    print(f"opened in {first:.1f} s, again in {second:.3f} s; loader {one:.0f} MB with 1 worker, {four:.0f} MB with 4")
    assert second < 2
    assert four < 1.5 * one
