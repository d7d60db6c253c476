"""Prediction on whatever holds an image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.profiler import record_function

from ..errors import SdkError, require_count
from ..inference.batching import Batch
from ..inference.prediction import Prediction
from ..inference.running import detect_views, ready, single_device, views_of
from ..inference.sources import ahead, as_pixels, picture_names, sources_of
from ..models.tta import TTA
from ..reports.drawing import draw_detections
from ..reports.pictures import save_image
from ..reports.profile import Profiler
from ..results.run import load

WORTH_A_COPY = 4
"""Images from which on a copy of the detector is made ready for them."""


def predict(
    images: Any,
    what: Any,
    *,
    score_threshold: float | None = None,
    batch_size: int = 1,
    device: str | None = None,
    tta: TTA | None = None,
    draw: bool = False,
    draw_threshold: float = 0.3,
    out: str | os.PathLike | None = None,
    profile: str | os.PathLike | None = None,
) -> Prediction | list[Prediction]:
    """Finds objects in images.

    Args:
        images: a path, a folder, an (H, W, 3) uint8 RGB array, a (3, H, W) tensor (uint8, or float in 0..1), a PIL
            image; a sequence of these, or a (B, 3, H, W) tensor.
        what: a Run or its folder, a detector, a weights file, or a name of the zoo.
        score_threshold: leave out what scores less; by default the detector's own test setting.
        batch_size: images that go through the network together.
        device: such as ``cuda:1``; a GPU where there is one.
        tta: test-time augmentation, the views in which each image is seen; by default those of the recipe.
        draw: add a picture with the detections of at least ``draw_threshold``.
        out: folder to write these pictures to, as PNG files; existing ones of the same name are replaced, and it may
            not be a folder that images are read from.
        profile: folder to which to write where the time of some batches goes: a table, and a trace that
            https://ui.perfetto.dev opens.

    Returns:
        One Prediction for one image; a list for a folder, a sequence or a batch.

    Raises:
        DatasetError: when a file is missing or no image.
        SdkError: when something else is no image.
    """
    require_count("batch_size", batch_size)
    single, sources = sources_of(images)
    trained = load(what)
    trained.model.to(single_device(device).device)
    folder = None if out is None else Path(out)
    if folder is not None:
        if any(isinstance(s, Path) and s.parent.resolve() == folder.resolve() for s in sources):
            raise SdkError(f"{folder}: images are read from this folder; give another one for the pictures")
        folder.mkdir(parents=True, exist_ok=True)
    names = picture_names(sources)
    if len(sources) >= WORTH_A_COPY:
        trained = replace(trained, model=ready(trained.model))

    def prepared(part: Sequence[Any]) -> tuple[list[np.ndarray], list[Batch]]:
        pixels = [as_pixels(source) for source in part]
        return pixels, views_of(trained, pixels, tta)

    found: list[Prediction] = []
    parts = [sources[start : start + batch_size] for start in range(0, len(sources), batch_size)]
    with Profiler(None if profile is None else Path(profile)) as profiler:
        for pixels, views in profiler.steps(ahead(prepared, parts)):
            with record_function("network"):
                detected = detect_views(trained, views, tta)
            for image, detections in zip(pixels, detected):
                source, name = sources[len(found)], names[len(found)]
                if score_threshold is not None:
                    detections = detections[detections.scores >= score_threshold]
                path = source if isinstance(source, Path) else None
                drawn = None
                if draw or folder is not None:
                    with record_function("pictures"):
                        drawn = draw_detections(image, detections, trained.classes, draw_threshold)
                        if folder is not None:
                            save_image(folder / f"{name}.png", drawn)
                fields = vars(detections)
                found.append(Prediction(**fields, classes=trained.classes, path=path, drawn=drawn if draw else None))
    return found[0] if single else found
