"""A detector as a file that runs without this package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.adapter import OnFault
from ..deployment.certificate import certificate_file, certify, parts_of, write_certificate
from ..deployment.precision import PRECISIONS, Precision, to_float16, to_int8
from ..deployment.writing import Where, write
from ..errors import SdkError
from ..opening import scored_split
from ..reports.progress import say
from ..results.exported import load_exported
from ..results.run import Run, load, require_fitting

CALIBRATED = 64
"""Images by which the ranges of int8 are found."""


def export(
    what: Any,
    out: str | os.PathLike,
    *,
    dataset: Any = None,
    split: str | None = None,
    on_fault: OnFault = "raise",
    images: int = 50,
    preprocess: Where = "inside",
    precision: Precision = "float32",
) -> Path:
    """Writes a detector for ONNX Runtime, OpenVINO, or as a program of ``torch.export``; existing files are replaced.

    The file gives ``boxes`` (B, M, 4) xyxy in each image's own pixels, ``scores`` (B, M), ``labels`` (B, M) and
    ``count`` (B,), best first; behind an image's count boxes and scores are 0 and labels -1. It carries classes, test
    settings and preprocessing as JSON under ``sdk.json``.

    Args:
        what: a Run or its folder, a detector, a weights file, or a name of the zoo.
        out: the file; its name ends in ``.onnx``, ``.pt2``, or ``.xml`` for OpenVINO.
        dataset: a path or a dataset, as of ``sdk.open``, on which the file is compared with the detector; where it
            carries splits, ``val`` is taken. The certificate, JSON and a page, lies beside the file, and ``sdk.verify``
            repeats it. Without a dataset there is none.
        split, on_fault: as in ``sdk.evaluate``.
        images: how many images are compared detection by detection; the protocol scores all.
        preprocess: ``inside``: the file takes ``images`` (B, 3, H, W) uint8 RGB, of any one size. ``outside``: it takes
            ``pixels`` (B, 3, P, Q) float32, normalized and zero padded to multiples of the recipe's divisor, ``sizes``
            (B, 2) float32 valid (h, w), and ``scales`` (B, 2) float32 (x, y) factors by which images were resized.
        precision: in which the layers of an ONNX file compute: ``float32``, ``float16``, or ``int8``, whose ranges are
            found on images of ``dataset``. The certificate says what that costs.

    Returns: the file.

    Raises:
        SdkError: when the format cannot hold the detector, with the reason.
        RunError: when ``what`` is no detector.
    """
    path = Path(out)
    require_precision(path, precision, dataset, preprocess)
    trained = load(what)
    scored_on = None if dataset is None else scored_split(dataset, split, on_fault)
    if scored_on is not None:
        # Before the file is written, which takes longer.
        require_fitting(trained, scored_on.classes)
    write(trained, path, preprocess, learnt_from(what))
    if precision == "float16":
        to_float16(path)
    elif precision == "int8" and scored_on is not None:
        places = np.linspace(0, len(scored_on) - 1, CALIBRATED).round().astype(int)
        to_int8(path, [scored_on[int(place)].image for place in np.unique(places)])
    say(f"{path}: {trained.recipe.name}, {sum(part.stat().st_size for part in parts_of(path)) / 1e6:.1f} MB")
    if scored_on is None:
        # One beside an earlier file of this name would be of that file.
        for old in (certificate_file(path), certificate_file(path).with_suffix(".html")):
            old.unlink(missing_ok=True)
        say("without a certificate: give the data with dataset=, in a shell --data, to have it compared")
        return path
    made = certify(path, load_exported(path), scored_on, trained, images)
    say(f"{made}\nthe certificate is {write_certificate(made, path)}")
    return path


def require_precision(path: Path, precision: str, dataset: Any, preprocess: str) -> None:
    """Raises SdkError where a file cannot have a precision."""
    if precision not in PRECISIONS:
        raise SdkError(f"precision: expected {', '.join(PRECISIONS)}, found {precision!r}")
    if precision == "float32":
        return
    if path.suffix != ".onnx":
        raise SdkError(f"{path}: {precision} is for files that end in .onnx")
    if precision == "int8" and (dataset is None or preprocess != "inside"):
        raise SdkError(
            "int8 needs images, to find the ranges of the activations: give dataset= and preprocess='inside'"
        )


def learnt_from(what: Any) -> str | None:
    """Fingerprint of the data that a run learnt from; none of what is no run."""
    if isinstance(what, (str, os.PathLike)) and Path(what).is_dir():
        what = Run(what)
    return what.manifest.get("dataset", {}).get("fingerprint") if isinstance(what, Run) else None
