"""Loading and scoring many images in FiftyOne: ``python -m benchmarks.explore [--images N] [--predictions N]``.

Images, annotations and predictions are drawn into a temporary folder, which also holds the database. Memory and time of
the CPU are those of this process, MongoDB's own not included.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .measuring import Case, parser, run

SIZE = (120, 160)
CLASSES = 80
OBJECTS = 7
"""On each image."""


def write_dataset(folder: Path, images: int, predictions: int) -> tuple[Path, Path]:
    """A COCO instances file with small pictures, and a results file: objects that were moved a little, and noise."""
    random = np.random.default_rng(0)
    height, width = SIZE
    entries, annotations, results = [], [], []
    ends = np.linspace(0, predictions, images + 1).astype(int)
    for image in range(images):
        picture = np.full((height, width, 3), random.integers(60, 200, 3), np.uint8)
        corners = random.uniform((0, 0), (width - 60, height - 60), (OBJECTS, 2))
        boxes = np.concatenate([corners, random.uniform(8, 60, (OBJECTS, 2))], axis=1)
        labels = random.integers(1, CLASSES + 1, OBJECTS)
        for (x, y, w, h), label in zip(boxes.tolist(), labels.tolist()):
            cv2.rectangle(picture, (round(x), round(y)), (round(x + w), round(y + h)), (3 * label, 255 - label, 90), -1)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image + 1,
                    "category_id": label,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
        for number in range(ends[image + 1] - ends[image]):
            about = number % OBJECTS
            right = random.random() < 0.7
            x, y, w, h = (boxes[about] + random.normal(0, 3, 4)).tolist()
            results.append(
                {
                    "image_id": image + 1,
                    "category_id": int(labels[about]) if right else int(random.integers(1, CLASSES + 1)),
                    "bbox": [x, y, max(w, 1.0), max(h, 1.0)],
                    "score": float(random.random()),
                }
            )
        cv2.imwrite(str(folder / f"{image}.jpg"), picture)
        entries.append({"id": image + 1, "file_name": f"{image}.jpg", "height": height, "width": width})
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)]
    content = {"images": entries, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    (folder / "results.json").write_text(json.dumps(results))
    return folder / "instances.json", folder / "results.json"


def measure(folder: Path, annotations: Path, results: Path, options: argparse.Namespace) -> None:
    """Loads, scores and opens again; shows and writes the figures."""
    os.environ["FIFTYONE_DATABASE_DIR"] = str(folder / "database")
    os.environ["FIFTYONE_SHOW_PROGRESS_BARS"] = "false"
    os.environ["SDK_CACHE"] = str(folder / "cache")
    (folder / "database").mkdir()
    import sdk
    from sdk.datasets import Coco
    from sdk.fiftyone.starting import start

    start()
    dataset = Coco(annotations=annotations, images=folder)
    made = sdk.explore(dataset, results, launch=False)
    shown = made.load_evaluation_results("eval").mAP()
    official = sdk.evaluate(dataset, results)["bbox/AP"]
    if abs(shown - official) > 1e-6:
        raise SystemExit(f"AP in FiftyOne {shown:.6f}, by sdk.evaluate {official:.6f}")
    made.delete()
    size = f"{len(dataset):,} images and {options.predictions:,} predictions"

    def anew() -> None:
        sdk.explore(dataset, results, launch=False, name="anew").delete()

    def again() -> None:
        sdk.explore(dataset, results, launch=False, name="again")

    cases = [Case(f"load and evaluate {size}", anew), Case(f"open again {size}", again)]
    run("explore", cases, options, {})


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Draws the data, and measures in a process of its own, which the database outlives by a moment."""
    made = parser("explore", __doc__ or "", turns=1)
    made.add_argument("--images", type=int, default=5_000)
    made.add_argument("--predictions", type=int, default=100_000)
    options = made.parse_args(arguments)
    if options.quick:
        options.images, options.predictions = 20, 200
    with tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        options.out = (options.out or folder / "explore.json").resolve()
        files = write_dataset(folder, options.images, options.predictions)
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(folder, *files, options))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)
        return json.loads(options.out.read_text())


if __name__ == "__main__":
    main()
