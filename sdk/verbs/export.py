"""A detector as a file that runs without this package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..deployment.writing import Where, write
from ..reports.progress import say
from ..results.run import load


def export(what: Any, out: str | os.PathLike, *, preprocess: Where = "inside") -> Path:
    """Writes a detector as an ONNX file or a program of ``torch.export``; an existing file is replaced.

    The file gives ``boxes`` (B, M, 4) xyxy in each image's own pixels, ``scores`` (B, M), ``labels`` (B, M) and
    ``count`` (B,), best first; behind an image's count boxes and scores are 0 and labels -1. It carries classes, test
    settings and preprocessing as JSON under ``sdk.json``.

    Args:
        what: a Run or its folder, a detector, a weights file, or a name of the zoo.
        out: the file; its name ends in ``.onnx`` or ``.pt2``.
        preprocess: ``inside``: the file takes ``images`` (B, 3, H, W) uint8 RGB, of any one size. ``outside``: it takes
            ``pixels`` (B, 3, P, Q) float32, normalized and zero padded to multiples of the recipe's divisor, ``sizes``
            (B, 2) float32 valid (h, w), and ``scales`` (B, 2) float32 (x, y) factors by which images were resized.

    Returns: the file.

    Raises:
        SdkError: when the format cannot hold the detector, with the reason.
        RunError: when ``what`` is no detector.
    """
    path = Path(out)
    trained = load(what)
    write(trained, path, preprocess)
    say(f"{path}: {trained.recipe.name}, {path.stat().st_size / 1e6:.1f} MB")
    return path
