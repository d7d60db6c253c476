"""Images with what was annotated and what was found, as files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ..errors import SdkError
from ..results.files import write_bytes
from .drawing import draw_boxes, draw_detections

if TYPE_CHECKING:
    from ..datasets.base import DetectionDataset
    from ..datasets.leaks import Pair
    from ..datasets.sample import Sample
    from ..datasets.transforms import Preprocessing
    from ..models.structures import Detections, ImageBatch, Targets


def draw_examples(found: Iterable[tuple[Sample, Detections]], classes: Sequence[str], folder: Path) -> list[Path]:
    """Ground truth beside detections, a PNG file an image."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for sample, detections in found:
        kept = sample.keep(~sample.ignore)
        names = [str(classes[label]) for label in kept.labels]
        pair = np.concatenate(
            [
                draw_boxes(sample.image, kept.boxes, kept.labels, names),
                draw_detections(sample.image, detections, classes),
            ],
            axis=1,
        )
        path = folder / f"{_file_name(sample.image_id)}.png"
        save_image(path, pair)
        written.append(path)
    return written


MOST_IN_BATCH, WIDEST = 16, 2400
"""Images of a batch that are drawn, and pixels that their picture is wide at most."""


def draw_batch(
    images: ImageBatch,
    targets: Sequence[Targets],
    preprocessing: Preprocessing,
    classes: Sequence[str],
    path: Path,
) -> None:
    """The images of a batch side by side as a detector gets them, padding and ground truth included; what is ignored is
    gray."""
    tiles = []
    for pixels, target in list(zip(images.pixels, targets))[:MOST_IN_BATCH]:
        image = preprocessing.denormalized(pixels.cpu().numpy())
        ignored = [] if target.ignore_boxes is None else target.ignore_boxes.round().int().tolist()
        for x1, y1, x2, y2 in ignored:
            cv2.rectangle(image, (x1, y1), (x2, y2), (128, 128, 128), 1)
        names = [str(classes[label]) for label in target.labels.tolist()]
        tiles.append(draw_boxes(image, target.boxes.cpu().numpy(), target.labels.cpu().numpy(), names))
    columns = int(np.ceil(np.sqrt(len(tiles))))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    whole = np.concatenate(rows, axis=0)
    if whole.shape[1] > WIDEST:
        whole = cv2.resize(whole, None, fx=(ratio := WIDEST / whole.shape[1]), fy=ratio, interpolation=cv2.INTER_AREA)
    save_image(path, whole)


MOST_PAIRS = 500
"""Pairs that are drawn; who has more looks at the first."""


def draw_pairs(pairs: Sequence[Pair], splits: Mapping[str, DetectionDataset], folder: Path) -> list[Path]:
    """Two images that are the same picture side by side with their annotations, a PNG file a pair; those between
    splits first."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, pair in enumerate(sorted(pairs, key=lambda pair: not pair.between_splits)[:MOST_PAIRS]):
        sides = []
        for place in (pair.first, pair.second):
            dataset = splits[place.split]
            sample = dataset[place.index]
            kept = sample.keep(~sample.ignore)
            names = [str(dataset.classes[label]) for label in kept.labels]
            drawn = draw_boxes(sample.image, kept.boxes, kept.labels, names)
            sides.append(cv2.resize(drawn, None, fx=(ratio := 400 / drawn.shape[0]), fy=ratio))
        height = min(side.shape[0] for side in sides)
        name = f"{number:04d}-{pair.first.split}-{pair.first.image_id}-{pair.second.split}-{pair.second.image_id}"
        written.append(folder / f"{_file_name(name)[:120]}.png")
        save_image(written[-1], np.concatenate([side[:height] for side in sides], axis=1))
    return written


def _file_name(image_id: Any) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in str(image_id))


def save_image(path: Path, image: np.ndarray) -> None:
    """Writes (H, W, 3) uint8 RGB in the format that the file name says. Raises SdkError where that is none."""
    if not path.suffix or not cv2.haveImageWriter(path.name):
        raise SdkError(f"{path}: no image format that can be written; expected a name such as {path.stem}.png")
    _, content = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    write_bytes(path, content.tobytes())
