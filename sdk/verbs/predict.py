"""Prediction on whatever holds an image."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.profiler import record_function

from ..errors import SdkError, require_count
from ..inference.pipeline import Looked, Settings, look
from ..inference.prediction import Prediction
from ..inference.processes import Devices, Job, look_in_processes, named_devices
from ..inference.running import ready, single_device
from ..inference.shards import Journal, about
from ..inference.sources import Place, Source, sources_of
from ..inference.streaming import LeftOut, OnBadImage, Predictions, PredictionStream
from ..inference.tiling import Tiles
from ..inference.tracking import Tracker, Tracking
from ..inference.writing import Pictures, Writer, kind_of, part_of, path_of, remove, writer_for
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
    threads: int = 2,
    device: str | None = None,
    devices: Devices | None = None,
    tta: TTA | None = None,
    tiles: Tiles | int | tuple[int, float] | None = None,
    track: bool | Tracker = False,
    draw: bool = False,
    draw_threshold: float = 0.3,
    out: str | os.PathLike | None = None,
    profile: str | os.PathLike | None = None,
) -> Prediction | Predictions | PredictionStream:
    """Finds objects in images.

    Args:
        images: a path, a folder, a pattern such as ``photos/*/*.jpg``; a film, the number of a camera, the address of a
            stream (``rtsp://...``); the bytes of a file; an (H, W, 3), gray (H, W)
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
        threads: that read and resize the batches which come next, for each device.
        device: such as ``cuda:1``; a GPU where there is one.
        devices: how many, or which as ``[0, 2]``, each with a process of its own, on CPUs too. What is finished is kept
            in shards beside ``out``, in a folder that ends in ``.shards``, until all of it is: the same call goes on
            where a killed one has stopped.
        tta: test-time augmentation, the views in which each image is seen; by default those of the recipe.
        tiles: cut images into overlapping tiles, in each of which objects are looked for: their size in pixels, with
            the share by which they overlap as ``(640, 0.2)``, or ``sdk.Tiles``. ``batch_size`` counts tiles then.
        track: give objects a number through the frames of a film, which all outputs have; images that are no film are
            taken for one. ``True`` is ByteTrack; or a tracker of the package ``trackers``.
        draw: add a picture with the detections of at least ``draw_threshold``.
        out: what is written to as the predictions come: a file of COCO results (``.json``), one that has an image a
            line (``.jsonl``) or an object a row (``.csv``, ``.parquet``), a folder of text files (``yolo:folder``),
            a film (``.mp4``), or a folder of pictures, PNG files. A file ends in ``.part`` until it is whole. Nothing
            is overwritten but earlier pictures, whose folder may not be one that images are read from.
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
    journal = None if out is None or devices is None else Journal(path_of(out))
    writer = None if out is None else _writer(out, journal)
    trained = load(what)
    settings = Settings(
        batch_size=batch_size,
        threads=threads,
        score_threshold=score_threshold,
        labels=None if classes is None else labels_of(classes, trained),
        tta=tta,
        tiles=Tiles.of(tiles),
        on_fault="raise" if sources.single else on_fault,
    )
    profiler = Profiler(None if profile is None else Path(profile))
    if devices is None:
        trained.model.to(single_device(device).device)
        looking = replace(trained, model=ready(trained.model)) if sources.many else trained
        looked = look(looking, sources.items, settings, profiler)
    else:
        names = named_devices(devices, device)
        if profile is not None:
            raise SdkError("profile: expected one process; leave out devices")
        if journal is not None:
            journal.open(about(trained, settings))
        job = Job(what if isinstance(what, (str, os.PathLike)) else trained, settings, journal)
        looked = look_in_processes(job, sources.items, names)
    left_out = LeftOut()
    drawing = Drawing(draw_threshold, draw, draw or (writer is not None and writer.draws))
    tracking = Tracking(None if track is True else track) if track else None
    made = _predictions(looked, trained, left_out, writer, profiler, drawing, journal, tracking)
    if stream:
        return PredictionStream(made, left_out.faults)
    found = Predictions(made, left_out.faults)
    return found[0] if sources.single else found


def _writer(out: str | os.PathLike, journal: Journal | None) -> Writer | None:
    """What writes to ``out``; none where a job was stopped between writing all of it and removing its shards."""
    if journal is not None and journal.exists:
        # What it had written is made again from the shards.
        remove(part_of(journal.out))
        if journal.out.exists() and kind_of(out) is not Pictures:
            return None
    return writer_for(out)


@dataclass(frozen=True)
class Drawing:
    """Whether pictures are drawn of what scores at least ``threshold``, and whether predictions keep them."""

    threshold: float
    kept: bool
    done: bool


def _predictions(
    looked: Generator[Looked],
    trained: Trained,
    left_out: LeftOut,
    writer: Writer | None,
    profiler: Profiler,
    drawing: Drawing,
    journal: Journal | None,
    tracking: Tracking | None,
) -> Generator[Prediction]:
    """The predictions of the images that can be read, in order."""
    found = 0
    with profiler, nullcontext() if writer is None else writer, closing(looked):
        for one in looked:
            if one.detections is None:
                assert one.fault is not None
                left_out.add(one.fault)
                continue
            found += 1
            prediction = Prediction(
                **vars(one.detections),
                classes=trained.classes,
                path=one.source.path,
                image_id=one.source.image_id,
                size=one.size,
                category_ids=category_ids(trained, one.source),
                track_ids=None if tracking is None else tracking.ids(one.source, one.detections),
                source=one.source.kept,
            )
            if drawing.done:
                with record_function("pictures"):
                    pixels = prediction.image if one.pixels is None else one.pixels
                    ids = prediction.track_ids
                    drawn = draw_detections(pixels, prediction, trained.classes, drawing.threshold, ids)
                prediction = replace(prediction, drawn=drawn)
            if writer is not None:
                with record_function("files"):
                    writer.add(prediction)
            yield prediction if drawing.kept else replace(prediction, drawn=None)
    if journal is not None:
        journal.remove()
    left_out.close(found + len(left_out.faults))


def labels_of(names: Sequence[str], trained: Trained) -> tuple[int, ...]:
    """Labels of classes by their names. Raises SdkError where the detector has no such class."""
    if isinstance(names, str):
        raise SdkError(f"classes: expected several names, such as [{names!r}], found {names!r}")
    known = trained.classes or ()
    unknown = [name for name in names if name not in known]
    if unknown:
        some = ", ".join(known[:20]) + (" ..." if len(known) > 20 else "")
        raise SdkError(f"classes: no class {unknown[0]!r}; the detector's are {some or 'not known by name'}")
    return tuple(known.index(name) for name in names)


def category_ids(trained: Trained, source: Source) -> tuple[int, ...] | None:
    """The ids of the dataset that the image is from, where its classes are the detector's; else the detector's own."""
    place = source.content
    if isinstance(place, Place):
        unknown = trained.classes is None and trained.model.num_classes == len(place.classes)
        if unknown or trained.classes == place.classes:
            return place.category_ids
    return trained.category_ids
