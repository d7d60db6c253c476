"""Looking at ground truth and predictions in the FiftyOne App."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import load, require_fitting
from .evaluate import scored_split
from .models.structures import Detections
from .predict import detect
from .reporting import Progress, save_image, say


def explore(
    dataset: Any,
    what: Any = None,
    *,
    split: str | None = None,
    name: str | None = None,
    address: str = "127.0.0.1",
    port: int = 5151,
    launch: bool = True,
) -> Any:
    """Opens the FiftyOne App on a dataset and what a detector finds in it.

    Each object is marked: ``eval`` is ``tp``, ``fp`` or ``fn`` at IoU 0.5, by FiftyOne's COCO-style matching.

    Args:
        dataset: a DetectionDataset; where it carries splits, ``val`` is shown, or ``split``.
        what: a Run or its folder, a detector, a weights file, a name of the zoo; none shows the ground truth alone.
        name: of the FiftyOne dataset, which is then kept; an unnamed one lasts as long as this process.
        address, port: where the App listens; nobody else's machine can reach the default.
        launch: without it the FiftyOne dataset is returned instead of the App's session.

    Raises:
        ClassMismatch: when the detector's classes are not the dataset's.
        ImportError: when FiftyOne is not installed.
    """
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
    try:
        import fiftyone as fo
    except ImportError as error:
        raise ImportError("sdk.explore needs FiftyOne: pip install 'detection-sdk[fiftyone]'") from error

    shown = scored_split(dataset, split)
    trained = None if what is None else load(what)
    if trained is not None:
        require_fitting(trained, shown.classes)
    made = fo.Dataset(name, persistent=name is not None)
    made.default_classes = list(shown.classes)
    media = None
    progress = Progress(len(shown), 1)
    for index in range(len(shown)):
        sample = shown[index]
        path = sample.path
        if path is None:
            if media is None:
                media = Path(tempfile.mkdtemp(prefix="sdk-explore-"))
                say(f"the dataset has no image files; its images are written to {media}")
            path = media / f"{index:06d}.png"
            save_image(path, sample.image)
        height, width = sample.size
        entry = fo.Sample(filepath=str(path), image_id=str(sample.image_id))
        entry.metadata = fo.ImageMetadata(width=width, height=height, num_channels=3)
        masks = None if sample.masks is None else sample.masks.decode()
        entry["ground_truth"] = as_labels(fo, shown.classes, sample.size, sample.boxes, sample.labels, masks)
        for label, ignored in zip(entry["ground_truth"].detections, sample.ignore.tolist()):
            label["iscrowd"] = ignored
        if trained is not None:
            entry["predictions"] = as_predictions(fo, shown.classes, sample.size, detect(trained, [sample.image])[0])
        made.add_sample(entry)
        progress.show(index + 1, "preparing", {})
    if trained is not None:
        made.evaluate_detections("predictions", gt_field="ground_truth", eval_key="eval", method="coco", iou=0.5)
        made.save_view("false positives", made.filter_labels("predictions", fo.ViewField("eval") == "fp"))
        made.save_view("missed", made.filter_labels("ground_truth", fo.ViewField("eval") == "fn"))
    return fo.launch_app(made, address=address, port=port) if launch else made


def as_predictions(fo: Any, classes: Sequence[str], size: tuple[int, int], found: Detections) -> Any:
    """Detections as FiftyOne labels with scores."""
    masks = None if found.masks is None else found.masks.numpy()
    labels = as_labels(fo, classes, size, found.boxes.numpy(), found.labels.numpy(), masks)
    for label, score in zip(labels.detections, found.scores.tolist()):
        label.confidence = score
    return labels


def as_labels(
    fo: Any,
    classes: Sequence[str],
    size: tuple[int, int],
    boxes: np.ndarray,
    labels: np.ndarray,
    masks: np.ndarray | None,
) -> Any:
    """Objects as FiftyOne labels: (N, 4) xyxy boxes relative to (H, W), (N, H, W) masks cut to their boxes."""
    height, width = size
    made = []
    for i, (box, label) in enumerate(zip(boxes, labels)):
        x1, y1, x2, y2 = (float(value) for value in box)
        mask = None
        if masks is not None:
            left, top = max(0, int(x1)), max(0, int(y1))
            mask = masks[i, top : max(top + 1, round(y2)), left : max(left + 1, round(x2))].astype(bool)
        relative = [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]
        made.append(fo.Detection(label=classes[int(label)], bounding_box=relative, mask=mask))
    return fo.Detections(detections=made)
