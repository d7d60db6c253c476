"""Predictions and matches as files, for machines without a database: a report now, FiftyOne elsewhere.

``python -m sdk.fiftyone.bundle FOLDER [--images IMAGES]`` opens a bundle in the FiftyOne App.
"""

from __future__ import annotations

import argparse
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.base import DetectionDataset
from ..datasets.coco import Coco
from ..errors import SdkError
from ..evaluators.analysis import ERRORS, ErrorBreakdown, error_breakdown
from ..evaluators.matching import Matches
from ..opening import scored_split
from ..reports.evaluation import evaluation_page
from ..reports.page import write_page
from ..reports.progress import say
from ..results.files import write_json
from .app import open_app
from .exporting import as_coco
from .predictions import Predictions, predictions_of

ANNOTATIONS, PREDICTIONS, ABOUT, REPORT = "ground_truth.json", "predictions.json", "bundle.json", "report.html"


def save_bundle(
    dataset: Any,
    what: Any,
    folder: str | os.PathLike,
    *,
    split: str | None = None,
    protocol: str | None = None,
    batch_size: int = 1,
    workers: int | None = None,
    device: str | None = None,
) -> Path:
    """Scores a detector and writes all that is needed to look at it elsewhere.

    ``ground_truth.json`` (COCO), ``predictions.json`` (COCO results), ``matches.parquet`` (``matches.json`` without
    pyarrow: one row an object with its mark, partner and IoU), ``report.html`` (in one file, without any server) and
    ``bundle.json``. Needs neither FiftyOne nor a database. Arguments are those of ``sdk.explore``.

    Returns:
        The report's file.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    shown = scored_split(dataset, split)
    settings = {"protocol": protocol, "batch_size": batch_size, "workers": workers, "device": device}
    found = predictions_of(shown, what, **settings)  # type: ignore[arg-type]
    evaluator: Any = found.evaluator
    report = evaluator.compute()
    kind = report.main.partition("/")[0]
    compared = evaluator.compared(kind)
    breakdown = error_breakdown(compared)
    truth = as_coco(shown)
    write_json(target / ANNOTATIONS, truth)
    write_json(target / PREDICTIONS, as_results(shown, found))
    table = match_table(shown, found, compared.matches, breakdown, [entry["id"] for entry in truth["annotations"]])
    write_table(target / "matches", table)
    write_json(
        target / ABOUT,
        {
            "protocol": protocol or getattr(shown, "protocol", "coco"),
            "classes": [str(c) for c in shown.classes],
            "images": os.path.commonpath([os.path.dirname(i["file_name"]) for i in truth["images"]] or ["/"]),
            "report": report.to_dict(),
        },
    )
    page = write_page(evaluation_page(report, "What the detector gets right and wrong", shown), target / REPORT)
    say(f"the report is {page}")
    return page


def as_results(dataset: DetectionDataset, found: Predictions) -> list[dict[str, Any]]:
    """Predictions in the form of a COCO results file."""
    results = []
    for i in range(len(found)):
        image = int(found.images[i])
        info = dataset.info(image)
        x1, y1, x2, y2 = found.boxes[i].tolist()
        entry: dict[str, Any] = {
            "image_id": info.image_id,
            "category_id": int(dataset.category_ids[found.labels[i]]),
            "score": float(found.scores[i]),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
        }
        counts = found.masks.get((image, int(found.index[i])))
        if counts is not None:
            entry["segmentation"] = {"size": list(info.size), "counts": counts.decode()}
        results.append(entry)
    return results


def match_table(
    dataset: DetectionDataset,
    found: Predictions,
    matches: Matches,
    breakdown: ErrorBreakdown | None,
    annotation_ids: list[Any],
) -> dict[str, list]:
    """Columns with one row a detection that the protocol looks at, then one a ground truth that was not found.

    ``prediction`` is the place in ``predictions.json``, ``annotation_id`` the partner, ``mark`` tp, fp, fn or ignored.
    """
    place = {(int(image), int(index)): i for i, (image, index) in enumerate(zip(found.images, found.index))}
    rows = [place[int(a), int(b)] for a, b in zip(matches.found.images, matches.found.index)]
    marks = np.where(matches.ignored, "ignored", np.where(matches.truth >= 0, "tp", "fp")).tolist()
    errors = [None] * len(rows) if breakdown is None else [None if k < 0 else ERRORS[k] for k in breakdown.kind]
    missed = np.flatnonzero(matches.missed).tolist()
    ids = [None if t < 0 else annotation_ids[t] for t in matches.truth.tolist()]
    return {
        "prediction": [*rows, *[None] * len(missed)],
        "annotation_id": [*ids, *[annotation_ids[t] for t in missed]],
        "mark": [*marks, *["fn"] * len(missed)],
        "iou": [*matches.iou.tolist(), *[None] * len(missed)],
        "error": [*errors, *[None] * len(missed)],
    }


def write_table(path: Path, columns: dict[str, list]) -> Path:
    """Parquet where pyarrow is installed, else JSON; gives the file."""
    if find_spec("pyarrow") is None:
        write_json(path.with_suffix(".json"), columns)
        return path.with_suffix(".json")
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def open_bundle(folder: str | os.PathLike, images: str | os.PathLike | None = None) -> tuple[Coco, Path]:
    """The dataset and the predictions file of a bundle, as ``sdk.explore`` and ``sdk.evaluate`` take them.

    Args:
        images: where the images lie on this machine; by default where they lay when the bundle was made.

    Raises:
        SdkError: when the folder is no bundle.
    """
    source = Path(folder)
    if not (source / ABOUT).is_file():
        raise SdkError(f"{source}: no bundle, there is no {ABOUT}")
    about = json.loads((source / ABOUT).read_bytes())
    annotations = source / ANNOTATIONS
    if images is not None and Path(images) != Path(about["images"]):
        content = json.loads(annotations.read_bytes())
        for image in content["images"]:
            image["file_name"] = os.path.relpath(image["file_name"], about["images"])
        annotations = source / "ground_truth.here.json"
        write_json(annotations, content)
    return Coco(
        annotations=annotations, images=about["images"] if images is None else Path(images)
    ), source / PREDICTIONS


def main() -> None:
    """Opens a bundle in the App until it is closed."""
    parser = argparse.ArgumentParser(prog="python -m sdk.fiftyone.bundle", description=main.__doc__)
    parser.add_argument("folder")
    parser.add_argument("--images", help="where the images lie on this machine")
    parser.add_argument("--port", type=int, default=5151)
    options = parser.parse_args()
    dataset, predictions = open_bundle(options.folder, options.images)
    open_app(dataset, predictions, port=options.port, wait=True)


if __name__ == "__main__":
    main()
