"""What ``sdk.predict`` gives."""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..models.structures import Detections


@dataclass(frozen=True)
class Prediction(Detections):
    """Detections of one image in its own pixels, and where they come from.

    classes: names in label order, or none where nobody said them. path: file of the image, or none. drawn: (H, W, 3)
    uint8 RGB picture with the detections, where drawing was asked for. image_id: that of the dataset; of a file its
    path below the folder that was given, without the ending; else the image's number.
    """

    classes: tuple[str, ...] | None = None
    path: Path | None = None
    drawn: np.ndarray | None = None
    image_id: Any = None

    @property
    def names(self) -> list[str]:
        """Class name of each detection; its label as text where the names are unknown."""
        labels = self.labels.tolist()
        return [str(label) if self.classes is None else self.classes[label] for label in labels]

    def to_dict(self) -> dict[str, Any]:
        """As plain values: path, and of each object its class, score and box (x1, y1, x2, y2 pixels)."""
        rows = zip(self.names, self.scores.tolist(), self.boxes.tolist())
        objects = [{"class": name, "score": score, "box": box} for name, score, box in rows]
        return {"path": None if self.path is None else str(self.path), "objects": objects}

    def to_pandas(self) -> Any:
        """One row an object; needs pandas."""
        import pandas

        rows = [[one["class"], one["score"], *one["box"]] for one in self.to_dict()["objects"]]
        return pandas.DataFrame(rows, columns=["class", "score", "x1", "y1", "x2", "y2"])

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in Counter(self.names).most_common(5))
        return f"Prediction({len(self.scores)} objects{': ' + counts if counts else ''})"

    def _repr_html_(self) -> str:
        rows = [
            f"<tr><td>{html.escape(name)}<td>{score:.3f}<td>{' '.join(f'{v:.1f}' for v in box)}"
            for name, score, box in zip(self.names, self.scores.tolist(), self.boxes.tolist())
        ]
        return f"{html.escape(repr(self))}<table><tr><th>class<th>score<th>x1 y1 x2 y2{''.join(rows)}</table>"

    def __getitem__(self, keep: Tensor | slice) -> Prediction:
        kept = Detections(self.boxes, self.scores, self.labels, self.masks, self.mask_scores)[keep]
        return Prediction(**vars(kept), classes=self.classes, path=self.path, image_id=self.image_id)
