"""Our detectors as FiftyOne models: ``view.apply_model(FiftyOneModel(run), "predictions")``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone.core.models import Model

from ..evaluators.collecting import encode_masks
from ..inference.running import detect, ready
from ..results.run import load
from .labels import to_label


class FiftyOneModel(Model):
    """A detector that gives FiftyOne labels.

    what: a Run or its folder, a detector, a weights file or a name of the zoo. score_threshold: leave out what scores
    less; by default the detector's own setting.
    """

    def __init__(self, what: Any, score_threshold: float | None = None) -> None:
        trained = load(what)
        self.trained = replace(trained, model=ready(trained.model))
        self.score_threshold = score_threshold

    @property
    def media_type(self) -> str:
        return "image"

    @property
    def ragged_batches(self) -> bool:
        return True

    @property
    def transforms(self) -> None:
        return None

    @property
    def preprocess(self) -> bool:
        return False

    def predict(self, arg: np.ndarray) -> fo.Detections:
        """Labels of one (H, W, 3) uint8 RGB image."""
        found = detect(self.trained, [arg])[0]
        if self.score_threshold is not None:
            found = found[found.scores >= self.score_threshold]
        names = self.trained.classes
        size = (arg.shape[0], arg.shape[1])
        masks = None if found.masks is None else encode_masks(found.masks)
        boxes = found.boxes.double().numpy()
        return fo.Detections(
            detections=[
                to_label(
                    fo,
                    str(label) if names is None else names[label],
                    boxes[i],
                    size,
                    None if masks is None else masks[i]["counts"],
                    confidence=score,
                )
                for i, (label, score) in enumerate(zip(found.labels.tolist(), found.scores.tolist()))
            ]
        )

    def predict_all(self, args: list[np.ndarray]) -> list[fo.Detections]:
        """Labels of several images, one after the other: they may differ in size."""
        return [self.predict(arg) for arg in args]
