"""What ``sdk.predict`` gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ..models.structures import Detections


@dataclass(frozen=True)
class Prediction(Detections):
    """Detections of one image in its own pixels, and where they come from.

    classes: names in label order, or none where nobody said them. path: file of the image, or none. drawn: (H, W, 3)
    uint8 RGB picture with the detections, where drawing was asked for.
    """

    classes: tuple[str, ...] | None = None
    path: Path | None = None
    drawn: np.ndarray | None = None

    @property
    def names(self) -> list[str]:
        """Class name of each detection; its label as text where the names are unknown."""
        labels = self.labels.tolist()
        return [str(label) if self.classes is None else self.classes[label] for label in labels]

    def __getitem__(self, keep: Tensor | slice) -> Prediction:
        kept = Detections(self.boxes, self.scores, self.labels, self.masks, self.mask_scores)[keep]
        return Prediction(**vars(kept), classes=self.classes, path=self.path)
