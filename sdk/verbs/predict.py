"""Prediction on whatever holds an image."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.profiler import record_function

from ..errors import require_count
from ..inference.batching import Batch
from ..inference.prediction import Prediction
from ..inference.running import detect_views, ready, single_device, views_of
from ..inference.sources import Place, Source, Sources, ahead, batches, sources_of
from ..inference.streaming import LeftOut, OnBadImage, Predictions, PredictionStream, Readable, Unreadable
from ..inference.writing import Pictures
from ..models.tta import TTA
from ..reports.drawing import draw_detections
from ..reports.profile import Profiler
from ..results.run import load
from ..results.weights import Trained


def predict(
    images: Any,
    what: Any,
    *,
    stream: bool = False,
    on_fault: OnBadImage | None = None,
    recursive: bool = False,
    bgr: bool = False,
    score_threshold: float | None = None,
    batch_size: int = 1,
    device: str | None = None,
    tta: TTA | None = None,
    draw: bool = False,
    draw_threshold: float = 0.3,
    out: str | os.PathLike | None = None,
    profile: str | os.PathLike | None = None,
) -> Prediction | Predictions | PredictionStream:
    """Finds objects in images.

    Args:
        images: a path, a folder, a pattern such as ``photos/*/*.jpg``; the bytes of a file; an (H, W, 3), gray (H, W)
            or RGBA (H, W, 4) array, uint8 or float in 0..1; a (3, H, W) tensor likewise; a PIL image; a dataset, of
            which ``val`` is taken where it carries splits; a sequence or an iterator of these, or a (B, H, W, 3) array
            or (B, 3, H, W) tensor.
        what: a Run or its folder, a detector, a weights file, or a name of the zoo.
        stream: give an iterator that holds a batch at a time, besides the two that are read meanwhile.
        on_fault: ``skip`` leaves out what cannot be read, says so and keeps it in ``faults``; ``raise`` stops there. By
            default what is found in folders and by patterns is skipped, and what was named is not. One image always
            raises.
        recursive: look into the folders inside a folder too.
        bgr: arrays have their channels in OpenCV's order.
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
        One Prediction for one image; a list for a folder, a sequence or a batch; an iterator with ``stream``. List and
        iterator have the images that were left out as ``faults``.

    Raises:
        DatasetError: when a file is missing or no image.
        SdkError: when something else is no image.
    """
    require_count("batch_size", batch_size)
    if on_fault not in (None, "skip", "raise"):
        raise ValueError(f"on_fault: expected skip or raise, found {on_fault!r}")
    sources = sources_of(images, recursive=recursive, bgr=bgr)
    trained = load(what)
    trained.model.to(single_device(device).device)
    if sources.many:
        trained = replace(trained, model=ready(trained.model))
    left_out = LeftOut("raise" if sources.single else on_fault)
    pictures = None if out is None else Pictures(Path(out))
    made = _predictions(
        sources,
        trained,
        left_out,
        pictures,
        score_threshold=score_threshold,
        batch_size=batch_size,
        tta=tta,
        draw=draw,
        draw_threshold=draw_threshold,
        profile=None if profile is None else Path(profile),
    )
    if stream:
        return PredictionStream(made, left_out.faults)
    found = Predictions(made, left_out.faults)
    return found[0] if sources.single else found


def _predictions(
    sources: Sources,
    trained: Trained,
    left_out: LeftOut,
    pictures: Pictures | None,
    *,
    score_threshold: float | None,
    batch_size: int,
    tta: TTA | None,
    draw: bool,
    draw_threshold: float,
    profile: Path | None,
) -> Generator[Prediction]:
    """The predictions of the images that can be read, in order."""

    def prepared(part: Sequence[Source]) -> tuple[Readable, Unreadable, list[Batch]]:
        images, bad = left_out.read(part)
        return images, bad, views_of(trained, [pixels for _, pixels in images], tta) if images else []

    seen = 0
    with Profiler(profile) as profiler:
        for images, bad, views in profiler.steps(ahead(prepared, batches(sources.items, batch_size))):
            seen += len(images) + len(bad)
            for source, error in bad:
                left_out.add(source, error)
            if not images:
                continue
            with record_function("network"):
                detected = detect_views(trained, views, tta)
            for (source, pixels), detections in zip(images, detected):
                if score_threshold is not None:
                    detections = detections[detections.scores >= score_threshold]
                drawn = None
                if draw or pictures is not None:
                    with record_function("pictures"):
                        drawn = draw_detections(pixels, detections, trained.classes, draw_threshold)
                        if pictures is not None:
                            pictures.write(source, drawn)
                yield Prediction(
                    **vars(detections),
                    classes=trained.classes,
                    path=source.path,
                    drawn=drawn if draw else None,
                    image_id=source.image_id,
                    size=pixels.shape[:2],
                    category_ids=category_ids(trained, source),
                    source=source,
                )
    left_out.close(seen)


def category_ids(trained: Trained, source: Source) -> tuple[int, ...] | None:
    """The ids of the dataset that the image is from, where its classes are the detector's; else the detector's own."""
    place = source.content
    if isinstance(place, Place):
        unknown = trained.classes is None and trained.model.num_classes == len(place.classes)
        if unknown or trained.classes == place.classes:
            return place.category_ids
    return trained.category_ids
