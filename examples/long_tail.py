"""What sampling does to rare classes: the same detector, trained three ways on a long-tailed cut of blood cells.

    python examples/long_tail.py ../shared/data/bccd [--seeds 3] [--out runs/long_tail]

Photographs of blood smears (Pascal VOC layout) are cut into tiles. Nearly all tiles of the training part show red
cells; by seed so many of those with platelets and with white cells are kept that they are on about 8 % and 3 % of the
tiles. A small detector is trained from random weights with every sampling and seed, and scored on all tiles of the
test part. Printed are the mean AP of each class over the seeds, and its standard deviation.
The seed decides the cut, the fresh weights and the order.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

import sdk
from sdk.datasets import DetectionDataset, subset
from sdk.datasets.sampling import image_classes
from sdk.datasets.transforms import Flip, Preprocessing, Resize
from sdk.models.zoo.tiny import tiny_retinanet

SIDE = 160
"""Of a tile, in pixels."""
KEPT = {"RBC": 280, "Platelets": 24, "WBC": 8}
"""Training tiles by the rarest class that they show."""
VISIBLE = 0.5
"""Share of an object inside a tile from which it counts; of less it is ignored."""
SAMPLINGS = ("uniform", "repeat_factor=0.2", "class_balanced")


def write_tiles(dataset: DetectionDataset, folder: Path) -> sdk.datasets.Coco:
    """The tiles of all images as a dataset in COCO layout."""
    images, annotations = [], []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for index in range(len(dataset)):
        sample = dataset[index]
        h, w = sample.size
        for top in range(0, h - SIDE + 1, SIDE):
            for left in range(0, w - SIDE + 1, SIDE):
                images.append(
                    {"id": len(images) + 1, "file_name": f"{len(images) + 1}.png", "height": SIDE, "width": SIDE}
                )
                tile = np.ascontiguousarray(sample.image[top : top + SIDE, left : left + SIDE, ::-1])
                cv2.imwrite(str(folder / "images" / images[-1]["file_name"]), tile)
                moved = sample.boxes - np.array([left, top, left, top], np.float32)
                inside = np.clip(moved, 0, SIDE)
                area = (inside[:, 2:] - inside[:, :2]).prod(1)
                share = area / np.maximum((moved[:, 2:] - moved[:, :2]).prod(1), 1)
                for box, label, seen, ignored in zip(inside.tolist(), sample.labels.tolist(), share, sample.ignore):
                    if seen > 0:
                        x1, y1, x2, y2 = box
                        annotations.append({
                            "id": len(annotations) + 1, "image_id": len(images), "category_id": label + 1,
                            "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1),
                            "iscrowd": int(seen < VISIBLE or ignored),
                        })  # fmt: skip
    categories = [{"id": label, "name": name} for label, name in enumerate(dataset.classes, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return sdk.datasets.Coco(annotations=folder / "instances.json", images=folder / "images", on_fault="skip")


def long_tailed(tiles: DetectionDataset, seed: int) -> DetectionDataset:
    """A cut of the tiles in which the classes are on as many as ``KEPT`` says."""
    shown = image_classes(tiles)
    groups: dict[str, list[int]] = {name: [] for name in KEPT}
    for index in range(len(tiles)):
        names = {tiles.classes[label] for label in shown[index]}
        rarest = next((name for name in reversed(KEPT) if name in names), None)
        # A tile of both rare classes would raise two frequencies at once.
        if rarest is not None and not {"Platelets", "WBC"} <= names:
            groups[rarest].append(index)
    rng = np.random.default_rng(seed)
    kept = [rng.permutation(groups[name])[:count] for name, count in KEPT.items()]
    return subset(tiles, np.sort(np.concatenate(kept)))


def main(arguments: list[str] | None = None) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the AP by sampling, seed and class."""
    options = argparse.ArgumentParser("long_tail.py")
    options.add_argument("dataset", nargs="?", default="../shared/data/bccd")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--epochs", type=int, default=12)
    options.add_argument("--out", type=Path, default=Path("runs/long_tail"))
    options.add_argument("--test-images", type=int, default=24, help="photographs that are scored")
    given = options.parse_args(arguments)

    source = sdk.open(given.dataset, on_fault="skip")
    tiles = write_tiles(source.train, given.out / "train")
    scored = write_tiles(subset(source.test, range(min(given.test_images, len(source.test)))), given.out / "test")
    recipe = replace(
        sdk.models.find_recipe("retinanet_tiny_shapes"),
        build=partial(tiny_retinanet, base_channels=16, channels=32, depth=2),
        preprocessing=Preprocessing(size=(96, 96)),
        train_transforms=(Resize(((96, 96),)), Flip(), Flip(direction="vertical")),
    )
    file = given.out / "figures.json"
    # What an earlier call has trained is not trained again.
    found: dict[str, dict[str, dict[str, float]]] = json.loads(file.read_text()) if file.is_file() else {}
    for seed in range(given.seeds):
        train = long_tailed(tiles, seed)
        for sampling in SAMPLINGS:
            if str(seed) in found.setdefault(sampling, {}):
                continue
            start = time.perf_counter()
            torch.manual_seed(seed)
            model = recipe.build(num_classes=len(train.classes))
            out = given.out / f"{sampling.split('=')[0]}_{seed}"
            run = sdk.fit(
                train, model, recipe=recipe, epochs=given.epochs, sampling=sampling, seed=seed, out=out, workers=0
            )
            report = sdk.evaluate(scored, run)
            found[sampling][str(seed)] = {name: report.per_class[name]["bbox/AP"].value or 0.0 for name in KEPT}
            file.write_text(json.dumps(found, indent=1))
            print(f"{sampling}, seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    print("| sampling | " + " | ".join(f"AP {name}" for name in KEPT) + " |\n|---|" + "---|" * len(KEPT))
    for sampling, by_seed in found.items():
        values = {name: [100 * figures[name] for figures in by_seed.values()] for name in KEPT}
        cells = [f"{np.mean(values[name]):.1f} ± {np.std(values[name]):.1f}" for name in KEPT]
        print(f"| `{sampling}` | {' | '.join(cells)} |")
    return found


if __name__ == "__main__":
    main()
