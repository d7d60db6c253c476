"""Four images in one.

Shape letters: H x W pixels of the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..masks import MixedMasks
from ..sample import Sample
from .canvas import has_area, moved_boxes, place
from .geometry import resized


@dataclass(frozen=True)
class Mosaic:
    """Joins the image with three others of a dataset around a random point (YOLOv4, section 3.4,
    https://arxiv.org/abs/2004.10934).

    others: where the three come from, such as the training dataset itself. size: (long, short) edge bounds of each
    image in either order; the canvas is twice as wide and high, ``size`` being (width, height) there. center: range of
    the meeting point, in parts of ``size``. fill: colour (RGB) where no image lies.

    Objects that are cut off whole are dropped, and so are proposals. Masks and semantic maps are kept if all four have
    them. The result bears the name of the first image; ``scale`` and ``original_size`` are those of the canvas.
    """

    others: Sequence[Sample]
    size: tuple[int, int] = (640, 640)
    center: tuple[float, float] = (0.5, 1.5)
    fill: tuple[float, float, float] = (114, 114, 114)

    def __post_init__(self) -> None:
        if not len(self.others):
            raise ValueError("Mosaic.others: expected at least one sample")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        width, height = self.size
        x, y = int(width * rng.uniform(*self.center)), int(height * rng.uniform(*self.center))
        four = [sample, *(self.others[int(i)] for i in rng.integers(len(self.others), size=3))]
        four = [resized(replace(part, proposals=None), self.size, keep_ratio=True) for part in four]

        # Every image gets its quarter of the canvas and lies in the corner at the meeting point.
        quarters = []
        for part, bottom, right in zip(four, (False, False, True, True), (False, True, False, True)):
            size = (2 * height - y if bottom else y, 2 * width - x if right else x)
            top, left = 0 if bottom else y - part.size[0], 0 if right else x - part.size[1]
            quarter = place(part, top, left, size, self.fill)
            quarters.append((quarter.keep(has_area(quarter.boxes)), y if bottom else 0, x if right else 0))
        parts = [quarter for quarter, _, _ in quarters]

        whole = (2 * height, 2 * width)
        masks = [p.masks.place(top, left, whole) for p, top, left in quarters if p.masks is not None]
        semantic = [part.semantic for part in parts if part.semantic is not None]
        places = tuple((number, row) for number, part in enumerate(parts) for row in range(len(part.boxes)))
        return replace(
            sample,
            image=_joined([part.image for part in parts]),
            boxes=np.concatenate([moved_boxes(p.boxes, top, left, whole) for p, top, left in quarters]),
            labels=np.concatenate([part.labels for part in parts]),
            ignore=np.concatenate([part.ignore for part in parts]),
            masks=MixedMasks(tuple(masks), places) if len(masks) == 4 else None,
            semantic=_joined(semantic) if len(semantic) == 4 else None,
            proposals=None,
            original_size=whole,
            scale=(1.0, 1.0),
        )


def _joined(quarters: list[np.ndarray]) -> np.ndarray:
    """Upper left, upper right, lower left and lower right as one array."""
    return np.concatenate([np.concatenate(quarters[:2], axis=1), np.concatenate(quarters[2:], axis=1)])
