"""Train, score and use a detector on a COCO folder; without one, on a small folder of drawn shapes that it writes.

python examples/coco.py [data/coco] [--model faster_rcnn_r50_fpn_1x_coco] [--epochs 12]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import sdk


def main(arguments: list[str] | None = None) -> float | None:
    """Returns the main figure on the validation split."""
    options = argparse.ArgumentParser("coco.py")
    options.add_argument("folder", nargs="?", type=Path, help="holds annotations/ and the images")
    options.add_argument("--model", default="retinanet_tiny_shapes")
    options.add_argument("--epochs", type=int)
    options.add_argument("--images", type=int, default=200, help="how many to draw where no folder is given")
    options.add_argument("--out")
    given = options.parse_args(arguments)

    with tempfile.TemporaryDirectory() as drawn:
        folder = given.folder or sdk.datasets.Shapes(given.images).write_coco(drawn)
        dataset = sdk.datasets.Coco(folder)
        run = sdk.fit(dataset, given.model, epochs=given.epochs, out=given.out)
        report = sdk.evaluate(dataset, run)
        found = sdk.predict(dataset.val.path(0), run, score_threshold=0.3)
        print(f"{found.path}: {', '.join(found.names) or 'nothing found'}")
        return report[report.main]


if __name__ == "__main__":
    main()
