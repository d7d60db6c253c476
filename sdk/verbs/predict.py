"""Prediction on whatever holds an image."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from ..errors import SdkError, require_count
from ..inference.batching import Batch
from ..inference.prediction import Prediction
from ..inference.running import detect_views, ready, single_device, views_of
from ..inference.sources import Place, Source, Sources, ahead, batches, sources_of
from ..inference.streaming import LeftOut, OnBadImage, Predictions, PredictionStream, Readable, Unreadable
from ..inference.writing import Pictures, Writer, writer_for
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
    classes: Sequence[str] | None = None,
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
        classes: names of the only classes to keep.
        batch_size: images that go through the network together.
        device: such as ``cuda:1``; a GPU where there is one.
        tta: test-time augmentation, the views in which each image is seen; by default those of the recipe.
        draw: add a picture with the detections of at least ``draw_threshold``.
        out: what is written to as the predictions come: a file of COCO results (``.json``), one that has an image a
            line (``.jsonl``) or an object a row (``.csv``, ``.parquet``), a folder of text files (``yolo:folder``), or
            a folder of pictures, PNG files. A file ends in ``.part`` until it is whole. Nothing is overwritten but
            earlier pictures, whose folder may not be one that images are read from.
        profile: folder to which to write where the time of some batches goes: a table, and a trace that
            https://ui.perfetto.dev opens.

    Returns:
        One Prediction for one image; a list for a folder, a sequence or a batch; an iterator with ``stream``. List and
        iterator have the images that were left out as ``faults``.

    Raises:
        DatasetError: when a file is missing or no image.
        SdkError: when something else is no image, ``out`` is there already, or there is no such class.
    """
    require_count("batch_size", batch_size)
    if on_fault not in (None, "skip", "raise"):
        raise ValueError(f"on_fault: expected skip or raise, found {on_fault!r}")
    sources = sources_of(images, recursive=recursive, bgr=bgr)
    writer = None if out is None else writer_for(out)
    trained = load(what)
    wanted = None if classes is None else labels_of(classes, trained)
    trained.model.to(single_device(device).device)
    if sources.many:
        trained = replace(trained, model=ready(trained.model))
    left_out = LeftOut("raise" if sources.single else on_fault)
    made = _predictions(
        sources,
        trained,
        left_out,
        writer,
        score_threshold=score_threshold,
        wanted=wanted,
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
    writer: Writer | None,
    *,
    score_threshold: float | None,
    wanted: Tensor | None,
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
    draws = draw or isinstance(writer, Pictures)
    with Profiler(profile) as profiler, nullcontext() if writer is None else writer:
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
                if wanted is not None:
                    detections = detections[torch.isin(detections.labels, wanted)]
                drawn = None
                if draws:
                    with record_function("pictures"):
                        drawn = draw_detections(pixels, detections, trained.classes, draw_threshold)
                prediction = Prediction(
                    **vars(detections),
                    classes=trained.classes,
                    path=source.path,
                    drawn=drawn,
                    image_id=source.image_id,
                    size=(pixels.shape[0], pixels.shape[1]),
                    category_ids=category_ids(trained, source),
                    source=source,
                )
                if writer is not None:
                    with record_function("files"):
                        writer.add(prediction)
                yield prediction if draw else replace(prediction, drawn=None)
    left_out.close(seen)


def labels_of(names: Sequence[str], trained: Trained) -> Tensor:
    """Labels of classes by their names. Raises SdkError where the detector has no such class."""
    if isinstance(names, str):
        raise SdkError(f"classes: expected several names, such as [{names!r}], found {names!r}")
    known = trained.classes or ()
    unknown = [name for name in names if name not in known]
    if unknown:
        some = ", ".join(known[:20]) + (" ..." if len(known) > 20 else "")
        raise SdkError(f"classes: no class {unknown[0]!r}; the detector's are {some or 'not known by name'}")
    return torch.tensor([known.index(name) for name in names], dtype=torch.int64)


def category_ids(trained: Trained, source: Source) -> tuple[int, ...] | None:
    """The ids of the dataset that the image is from, where its classes are the detector's; else the detector's own."""
    place = source.content
    if isinstance(place, Place):
        unknown = trained.classes is None and trained.model.num_classes == len(place.classes)
        if unknown or trained.classes == place.classes:
            return place.category_ids
    return trained.category_ids
