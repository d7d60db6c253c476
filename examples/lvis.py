"""Train, score and look at a detector on LVIS, with repeat-factor sampling where the recipe asks for it.

    python examples/lvis.py data/lvis [--model mask_rcnn_r50_fpn_sample1e-3_mstrain_1x_lvis_v1] [--epochs 12]

The folder holds the official layout (lvis_v1_train.json, lvis_v1_val.json, train2017, val2017) or a part of it: images
that are missing are left out and counted. Scored is the federated LVIS AP, rare, common and frequent classes apart too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import sdk


def main(arguments: list[str] | None = None) -> float | None:
    """Returns the main figure."""
    options = argparse.ArgumentParser("lvis.py")
    options.add_argument("folder", type=Path)
    options.add_argument("--model", default="retinanet_tiny_shapes")
    options.add_argument("--epochs", type=int)
    options.add_argument("--train", default="train", help="split to train on")
    options.add_argument("--score", default="val", help="split to score")
    options.add_argument("--explore", action="store_true", help="open the FiftyOne App afterwards")
    options.add_argument("--out")
    given = options.parse_args(arguments)

    train = sdk.datasets.Lvis(given.folder, split=given.train, on_fault="skip")
    scored = sdk.datasets.Lvis(given.folder, split=given.score, on_fault="skip")
    # The sampling of the LVIS paper; what it does to each class is said before the first step.
    sampling = "repeat_factor=0.001"
    run = sdk.fit(train, given.model, validation=scored, sampling=sampling, epochs=given.epochs, out=given.out)
    report = sdk.evaluate(scored, run)
    for name, value in report.metrics.items():
        print(f"{name:<16} {value}")
    if given.explore:
        sdk.explore(scored, run)
    return report[report.main]


if __name__ == "__main__":
    main()
