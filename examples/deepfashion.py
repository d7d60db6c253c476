"""Train, score and look at a detector on DeepFashion In-shop.

    python examples/deepfashion.py data/DeepFashion [--model mask_rcnn_r50_fpn_15e_deepfashion] [--epochs 15]

The folder holds the official layout (In-shop/Anno/segmentation, In-shop/Img) or a part of it: images that are missing
are left out and counted. Scored is the COCO AP of boxes and masks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import sdk


def main(arguments: list[str] | None = None) -> float | None:
    """Returns the main figure."""
    options = argparse.ArgumentParser("deepfashion.py")
    options.add_argument("folder", type=Path)
    options.add_argument("--model", default="retinanet_tiny_shapes")
    options.add_argument("--epochs", type=int)
    options.add_argument("--train", default="train", help="split to train on")
    options.add_argument("--score", default="query", help="split to score")
    options.add_argument("--explore", action="store_true", help="open the FiftyOne App afterwards")
    options.add_argument("--out")
    given = options.parse_args(arguments)

    train = sdk.datasets.DeepFashion(given.folder, split=given.train, on_fault="skip")
    scored = sdk.datasets.DeepFashion(given.folder, split=given.score, on_fault="skip")
    run = sdk.fit(train, given.model, validation=scored, epochs=given.epochs, out=given.out)
    report = sdk.evaluate(scored, run)
    for name, value in report.metrics.items():
        print(f"{name:<16} {value}")
    if given.explore:
        sdk.explore(scored, run)
    return report[report.main]


if __name__ == "__main__":
    main()
