"""Exported ONNX files in ONNX Runtime against the same detector in PyTorch, images to detections.

``python -m benchmarks.export``
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sdk
from sdk import models
from sdk.inference.running import detect, ready
from sdk.models.tta import TTA
from sdk.results.run import load

from .measuring import Case, parser, run

NAMES = ("retinanet_r50_fpn_1x_coco", "faster_rcnn_r50_fpn_1x_coco")
SIZE, SMALL = (800, 1344), (96, 128)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures, and returns the figures."""
    options = parser("export", __doc__ or "", turns=5).parse_args(arguments)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        return run("export", cases(options, Path(folder)), options, {})


def cases(options: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """Each detector on one image, with resizing and suppression on both sides."""
    size = SMALL if options.quick else SIZE
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for name in ("retinanet_tiny_shapes",) if options.quick else NAMES:
        torch.manual_seed(0)
        trained = load(models.create(name, weights=None).eval())
        path = sdk.export(trained, folder / f"{name}.onnx")
        exported, folded = load(path), replace(trained, model=ready(trained.model))
        yield Case(
            f"{name} as ONNX, 1 x {size[0]} x {size[1]}",
            lambda exported=exported: detect(exported, [image], TTA()),
            {
                "eager PyTorch": lambda trained=trained: detect(trained, [image], TTA()),
                "sdk.predict": lambda folded=folded: detect(folded, [image], TTA()),
            },
            target={"eager PyTorch": 1.2},
        )


if __name__ == "__main__":
    main()
