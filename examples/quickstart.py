"""From a dataset to a report with pictures in one go: shapes drawn on the fly, or a folder of yours."""

from __future__ import annotations

import argparse
import time

import sdk
from sdk.opening import open_dataset


def main(arguments: list[str] | None = None) -> float | None:
    """Trains, scores, draws; returns the COCO AP."""
    options = argparse.ArgumentParser("quickstart", description=__doc__)
    options.add_argument("data", nargs="?", default="shapes", help="a dataset's folder (default: drawn shapes)")
    options.add_argument("--model", help="a name of the zoo (default: a small detector)")
    options.add_argument("--epochs", type=int, help="passes over the data (default: the recipe's)")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", help="run folder")
    given = options.parse_args(arguments)

    began = time.monotonic()
    dataset = open_dataset(given.data)
    name = given.model or ("retinanet_tiny_shapes" if given.data.startswith("shapes") else "fcos_tiny")
    run = sdk.fit(dataset, name, epochs=given.epochs, seed=given.seed, out=given.out)
    held_out = dataset.test or dataset.val or dataset
    report = sdk.evaluate(held_out, run, protocol="coco")
    for figure, value in report.metrics.items():
        print(f"{figure:<12} {value}")
    print(f"{time.monotonic() - began:.0f} s; the report is {run.folder / 'evaluation' / 'report.html'}")
    return report["bbox/AP"]


if __name__ == "__main__":
    main()
