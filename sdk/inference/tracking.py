"""One number for one object through the images of a film.

Shape letters: N detections of one image.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..models.structures import Detections
from .sources import Source
from .video import RATE, Frame


class Tracker(Protocol):
    """A tracker of the package ``trackers``, such as ``trackers.OCSORTTracker()``."""

    def update(self, detections: Any) -> Any:
        """``supervision.Detections`` of the next image, in any order, with a ``tracker_id`` each; -1 for none."""
        ...

    def reset(self) -> None:
        """Begins anew."""
        ...


class Tracking:
    """Numbers for detections of images that come in order; with each film they begin anew.

    tracker: as it is, or made for the frame rate of the first image: ByteTrack (Zhang et al., 2022).
    """

    def __init__(self, tracker: Tracker | None) -> None:
        try:
            import supervision
            import trackers
        except ModuleNotFoundError as error:
            raise ImportError("track needs the package trackers: pip install 'detection-sdk[video]'") from error
        self._supervision, self._trackers, self._tracker = supervision, trackers, tracker
        self._last: Frame | None = None

    def ids(self, source: Source, detections: Detections) -> Tensor:
        """(N,) int64: the number of each detection, from 0 on; -1 where it belongs to nothing that is followed."""
        frame, last = source.content if isinstance(source.content, Frame) else None, self._last
        if self._tracker is None:
            self._tracker = self._trackers.ByteTrackTracker(frame_rate=RATE if frame is None else frame.rate)
        elif frame is not None and (last is None or frame.film != last.film or frame.index <= last.index):
            self._tracker.reset()
        self._last = None if frame is None else frame.kept
        count = len(detections)
        followed = self._tracker.update(
            self._supervision.Detections(
                xyxy=detections.boxes.numpy().astype(np.float32).reshape(-1, 4),
                confidence=detections.scores.numpy().astype(np.float32),
                class_id=detections.labels.numpy().astype(int),
                data={"place": np.arange(count)},
            )
        )
        ids = torch.full((count,), -1, dtype=torch.int64)
        if followed.tracker_id is not None and len(followed):
            ids[torch.from_numpy(followed.data["place"])] = torch.from_numpy(followed.tracker_id.astype(np.int64))
        return ids
