"""From sources to what a detector finds in them, a batch at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.profiler import record_function

from ..datasets.errors import Fault
from ..models.structures import Detections
from ..models.tta import TTA
from ..reports.profile import Profiler
from ..results.weights import Trained
from .batching import Batch
from .running import detect_views, views_of
from .sources import Source, ahead, batches
from .streaming import OnBadImage, skips
from .tiling import Rectangle, Tiles, merged


@dataclass(frozen=True)
class Settings:
    """How images are looked at, and what is kept of what is found.

    batch_size: images that go through the network together. threads: that read the batches which come next.
    score_threshold: leave out what scores less; by default the detector's own test setting. labels: the only ones to
    keep. tta: the views in which each image is seen; by default those of the recipe. tiles: that images
    are cut into. on_fault: as of ``skips``.
    """

    batch_size: int = 1
    threads: int = 2
    score_threshold: float | None = None
    labels: tuple[int, ...] | None = None
    tta: TTA | None = None
    tiles: Tiles | None = None
    on_fault: OnBadImage | None = None

    def kept(self, detections: Detections) -> Detections:
        """What is wanted of the detections of an image."""
        if self.score_threshold is not None:
            detections = detections[detections.scores >= self.score_threshold]
        if self.labels is not None:
            wanted = torch.tensor(self.labels, dtype=torch.int64)
            detections = detections[torch.isin(detections.labels, wanted)]
        return detections


@dataclass(frozen=True)
class Looked:
    """One image that was looked at: its (h, w), what was found in it, and its pixels where this process has them; or
    the ``fault`` for which it could not be read."""

    source: Source
    size: tuple[int, int] = (0, 0)
    detections: Detections | None = None
    pixels: np.ndarray | None = None
    fault: Fault | None = None


def look(
    trained: Trained, sources: Iterable[Source], settings: Settings, profiler: Profiler | None = None
) -> Generator[Looked]:
    """All images in their order; those that come next are read while the network works.

    Raises what reading an image raises, where ``settings`` do not skip it.
    """
    looking = _whole if settings.tiles is None else _tiled
    for one in looking(trained, sources, settings, profiler or Profiler(None)):
        yield one if one.detections is None else replace(one, detections=settings.kept(one.detections))


def _whole(trained: Trained, sources: Iterable[Source], settings: Settings, profiler: Profiler) -> Generator[Looked]:
    def prepared(part: Sequence[Source]) -> tuple[list[Looked], list[Batch]]:
        read = [_read(source, settings.on_fault) for source in part]
        images = [one.pixels for one in read if one.pixels is not None]
        return read, views_of(trained, images, settings.tta) if images else []

    prepared_batches = ahead(prepared, batches(sources, settings.batch_size), settings.threads)
    for read, views in profiler.steps(prepared_batches):
        with record_function("network"):
            found = iter(detect_views(trained, views, settings.tta) if views else ())
        for one in read:
            yield one if one.fault else replace(one, detections=next(found))


def _tiled(trained: Trained, sources: Iterable[Source], settings: Settings, profiler: Profiler) -> Generator[Looked]:
    assert settings.tiles is not None
    tiles = settings.tiles
    images = ahead(lambda source: _read(source, settings.on_fault), sources, settings.threads)

    def prepared(part: _Part) -> tuple[_Part, list[Batch]]:
        pixels = part.image.pixels
        if pixels is None:
            return part, []
        return part, views_of(trained, [pixels[y1:y2, x1:x2] for x1, y1, x2, y2 in part.tiles], settings.tta)

    found: list[Detections] = []
    parts = ahead(prepared, _parts(images, tiles, settings.batch_size), settings.threads)
    for part, views in profiler.steps(parts):
        with record_function("network"):
            found += detect_views(trained, views, settings.tta) if views else []
        if part.last:
            one = part.image
            if one.fault is None:
                one = replace(one, detections=merged(found, tiles.rectangles(*one.size), one.size, tiles))
            found = []
            yield one


@dataclass(frozen=True)
class _Part:
    """Tiles of an image that go through the network together. last: there are no more of it."""

    image: Looked
    tiles: list[Rectangle]
    last: bool


def _parts(images: Iterable[Looked], tiles: Tiles, batch_size: int) -> Generator[_Part]:
    for image in images:
        rectangles = [] if image.fault else tiles.rectangles(*image.size)
        # The image as a whole, which is the last one, has a size of its own.
        cut = len(rectangles) - 1 if tiles.whole and len(rectangles) > 1 else len(rectangles)
        parts = [*batches(rectangles[:cut], batch_size), *batches(rectangles[cut:], batch_size)] or [[]]
        for number, part in enumerate(parts, start=1):
            yield _Part(image, part, number == len(parts))


def _read(source: Source, on_fault: OnBadImage | None) -> Looked:
    try:
        pixels = source.pixels()
    except (ValueError, OSError) as error:
        if not skips(source, on_fault):
            raise
        return Looked(source, fault=source.fault(error))
    return Looked(source, size=(pixels.shape[0], pixels.shape[1]), pixels=pixels)
