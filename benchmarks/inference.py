"""Detection against torchvision's detectors of the same architecture, and ``sdk.predict`` against the bare network.

``python -m benchmarks.inference [--batch-size N ...] [--bf16]``
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import sdk
from sdk import models
from sdk.models.folding import channels_last, for_inference

from .detectors import PAIRS, Pair, images
from .measuring import Case, parser, run

SIZE, SMALL = (800, 1344), (96, 128)
FILES = 8


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures, and returns the figures."""
    made = parser("inference", __doc__ or "", turns=5)
    made.add_argument("--batch-size", type=int, nargs="+", default=[1, 8])
    made.add_argument("--bf16", action="store_true", help="both sides in bfloat16 (autocast) too")
    options = made.parse_args(arguments)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        return run("inference", cases(options, Path(folder)), options, {})


def cases(options: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """Both architectures at every batch size, then ``sdk.predict``."""
    size = SMALL if options.quick else SIZE
    for pair in PAIRS[:1] if options.quick else PAIRS:
        for precision in ("float32", *(["bfloat16"] if options.bf16 else [])):
            for count in options.batch_size[:1] if options.quick else options.batch_size:
                yield detection(pair, count, size, getattr(torch, precision))
    yield prediction(folder, size)


def detection(pair: Pair, count: int, size: tuple[int, int], dtype: torch.dtype) -> Case:
    ours, theirs = for_inference(pair.ours()), pair.torchvision(size).eval()
    batch, pictures = images(count, size)

    def in_precision(call: Callable[[], object]) -> Callable[[], object]:
        def run() -> object:
            autocast = contextlib.nullcontext() if dtype is torch.float32 else torch.autocast("cpu", dtype)
            with autocast:
                return call()

        return run

    return Case(
        f"{pair.title}, {count} x {size[0]} x {size[1]}, {str(dtype).removeprefix('torch.')}",
        in_precision(lambda: ours.predict(channels_last(batch))),
        {"torchvision": in_precision(lambda: theirs(pictures))},
        target={"torchvision": 1.3},
        per=count,
    )


def prediction(folder: Path, size: tuple[int, int]) -> Case:
    """Files to detections, against the network alone on pixels that are ready."""
    random = np.random.default_rng(0)
    for number in range(FILES):
        small = random.integers(0, 255, (size[0] // 16, size[1] // 16, 3), np.uint8)
        picture = cv2.resize(small, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number}.jpg"), picture)
    model = PAIRS[1].ours()
    model.recipe = _without_resizing(model.recipe)
    network, (batch, _) = for_inference(model), images(1, size)

    def bare() -> None:
        for _ in range(FILES):
            network.predict(channels_last(batch))

    return Case(
        f"sdk.predict of {FILES} JPEG files of {size[0]} x {size[1]} / the network alone",
        lambda: sdk.predict(folder, model),
        {"network": bare},
        target={"network": 0.95},
        per=FILES,
    )


def _without_resizing(recipe: models.Recipe) -> models.Recipe:
    return replace(recipe, preprocessing=replace(recipe.preprocessing, size=None))


if __name__ == "__main__":
    main()
