"""Images with what was annotated and what was found, as files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ..results.files import write_bytes
from .drawing import draw_boxes, draw_detections

if TYPE_CHECKING:
    from ..datasets.sample import Sample
    from ..models.structures import Detections


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


def _file_name(image_id: Any) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in str(image_id))


def save_image(path: Path, image: np.ndarray) -> None:
    """Writes (H, W, 3) uint8 RGB in the format that the file name says."""
    done, content = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"{path}: no such image format")
    write_bytes(path, content.tobytes())
