"""Predictions from wherever they come, as FiftyOne labels and as the evaluator that scores them.

Shape letters: D detections of all images.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.base import DetectionDataset
from ..datasets.masks import check_rle
from ..errors import SdkError
from ..evaluators.base import Evaluator
from ..evaluators.collecting import encode_masks
from ..evaluators.results_files import parquet_columns, read_parquet
from ..inference.given import are_predictions, fitting_evaluator, read_predictions
from ..inference.running import default_workers, single_device
from ..inference.scoring import collect
from ..models.structures import Detections
from ..results.run import Run, load, require_fitting
from .labels import to_label


@dataclass(frozen=True)
class Predictions:
    """What a detector finds in a dataset.

    evaluator: has all of it and scores it. images: (D,) place of the image in the dataset. index: (D,) place within the
    image. labels, scores: (D,). boxes: (D, 4) float64 xyxy pixels. masks: compressed run lengths by (image, index).
    """

    evaluator: Evaluator
    images: np.ndarray
    index: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    masks: dict[tuple[int, int], bytes]

    def __len__(self) -> int:
        return len(self.labels)

    @staticmethod
    def of(evaluator: Evaluator, masks: dict[tuple[int, int], bytes]) -> Predictions:
        """What an evaluator has collected."""
        state = evaluator.state()
        order = np.lexsort((state["index"], state["image"]))
        box = state["box"][order]
        return Predictions(
            evaluator,
            images=state["image"][order],
            index=state["index"][order],
            labels=state["label"][order],
            scores=state["score"][order],
            boxes=np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1),
            masks=masks,
        )


def predictions_of(
    dataset: DetectionDataset,
    what: Any,
    *,
    protocol: str | None = None,
    batch_size: int = 1,
    workers: int | None = None,
    device: str | None = None,
) -> Predictions:
    """Runs a detector, or reads what it predicted.

    Args:
        what: a Run or its folder, a detector, a weights file, a name of the zoo, a COCO results file (``.json``), a
            ``.parquet`` file of ``sdk.predict``, a folder of the protocol's own text files, or the Detections of all
            images in the dataset's order.
        protocol: by which they are scored; by default the dataset's own.
        batch_size, workers, device: as in ``sdk.evaluate``.

    Raises:
        SdkError: when the number of Detections is not that of the images.
        ClassMismatch: when the detector's classes are not the dataset's.
    """
    place = {dataset.info(i).image_id: i for i in range(len(dataset))}
    masks: dict[tuple[int, int], bytes] = {}

    def keep(image_ids: Sequence[Any], found: Sequence[Detections]) -> None:
        for image_id, one in zip(image_ids, found):
            if one.masks is not None:
                encoded = encode_masks(one.masks)
                masks.update({(place[image_id], i): mask["counts"] for i, mask in enumerate(encoded)})

    if are_predictions(what):
        evaluator = read_predictions(dataset, Path(what), protocol, keep)
        if Path(what).is_file():
            masks = _masks_of_results(Path(what), place, set(dataset.category_ids))
        return Predictions.of(evaluator, masks)
    if isinstance(what, Sequence) and not isinstance(what, str) and all(isinstance(d, Detections) for d in what):
        if len(what) != len(dataset):
            raise SdkError(f"detections of {len(what)} images, and the dataset has {len(dataset)}; give one for each")
        evaluator = fitting_evaluator(dataset, bool(what) and what[0].masks is not None, protocol)
        evaluator.update(list(place), what)
        keep(list(place), what)
        return Predictions.of(evaluator, masks)
    trained = load(what)
    require_fitting(trained, dataset.classes)
    fabric = single_device(device)
    trained.model.to(fabric.device)
    workers = default_workers() if workers is None else workers
    evaluator = collect(dataset, trained.model, trained.recipe, batch_size, workers, fabric, protocol, keep=keep)
    return Predictions.of(evaluator, masks)


def _masks_of_results(path: Path, place: dict[Any, int], category_ids: set[int]) -> dict[tuple[int, int], bytes]:
    """The masks of a results file that the evaluator has checked, by image and place among those that it kept."""
    if path.suffix == ".parquet":
        results = read_parquet(path, masks="mask" in parquet_columns(path))
        entries = zip(results.image_ids, results.category_ids, results.masks or itertools.repeat(None))
    else:
        read = json.loads(path.read_bytes())
        entries = ((entry["image_id"], entry["category_id"], entry.get("segmentation")) for entry in read)
    masks, counts = {}, [0] * len(place)
    for image_id, category_id, mask in entries:
        if category_id not in category_ids:
            continue
        if image_id not in place:
            # It stands as a number here and as its digits there.
            image_id = int(image_id) if isinstance(image_id, str) else str(image_id)
        image = place[image_id]
        if mask is not None:
            masks[image, counts[image]] = check_rle(mask)
        counts[image] += 1
    return masks


def source_of(what: Any) -> str | None:
    """Names what the predictions come from, so that the same is recognized again; none where it may have changed."""
    if isinstance(what, Run):
        what = what.weights_file
    elif isinstance(what, (str, os.PathLike)) and Path(what).is_dir() and not are_predictions(what):
        what = Run(what).weights_file
    if not isinstance(what, (str, os.PathLike)) or not Path(what).exists():
        return None
    files = [file for file in sorted(Path(what).rglob("*")) if file.is_file()] or [Path(what)]
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def add_predictions(made: Any, dataset: DetectionDataset, found: Predictions, field: str) -> None:
    """Writes predictions as a field of the FiftyOne dataset that ``to_fiftyone`` made of the same dataset.

    A field of that name is replaced together with its evaluation. Several models are several fields.
    """
    import fiftyone as fo

    if made.has_sample_field(field):
        for key in made.list_evaluations():
            if made.get_evaluation_info(key).config.pred_field == field:
                made.delete_evaluation(key)
        made.delete_sample_field(field)
    made.add_sample_field(field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    classes = [str(c) for c in dataset.classes]
    starts = np.searchsorted(found.images, np.arange(len(dataset) + 1))
    sizes = dict(zip(made.values("image_id"), zip(made.values("metadata.height"), made.values("metadata.width"))))
    # Image by image into the database, a thousand at once: memory stays flat.
    for first in range(0, len(dataset), 1000):
        labels = {}
        for image in range(first, min(first + 1000, len(dataset))):
            image_id = dataset.info(image).image_id
            labels[image_id] = fo.Detections(
                detections=[
                    to_label(
                        fo,
                        classes[found.labels[i]],
                        found.boxes[i],
                        sizes[image_id],
                        found.masks.get((image, int(found.index[i]))),
                        confidence=float(found.scores[i]),
                    )
                    for i in range(starts[image], starts[image + 1])
                ]
            )
        made.set_values(field, labels, key_field="image_id", dynamic=False)
