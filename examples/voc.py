"""Train and score a detector on Pascal VOC or a folder laid out like it; without one, on drawn shapes.

python examples/voc.py [data/VOCdevkit] [--model faster_rcnn_r50_fpn_1x_voc0712] [--epochs 4]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

import cv2

import sdk


def write_voc(dataset: sdk.datasets.Shapes, folder: Path) -> Path:
    """Writes drawn shapes as ``Annotations``, ``JPEGImages`` and ``ImageSets/Main``."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for split, part in dataset.splits.items():
        names = [f"{split}_{index:04d}" for index in range(len(part))]
        (folder / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for index, name in enumerate(names):
            sample = part[index]
            cv2.imwrite(str(folder / "JPEGImages" / f"{name}.jpg"), sample.image[:, :, ::-1])
            objects = "".join(
                f"<object><name>{escape(part.classes[label])}</name><difficult>0</difficult><bndbox>"
                # VOC counts pixels from 1 and its last pixel belongs to the box.
                f"<xmin>{x1 + 1:.0f}</xmin><ymin>{y1 + 1:.0f}</ymin><xmax>{x2:.0f}</xmax><ymax>{y2:.0f}</ymax>"
                "</bndbox></object>"
                for label, (x1, y1, x2, y2) in zip(sample.labels, sample.boxes)
            )
            height, width = sample.size
            (folder / "Annotations" / f"{name}.xml").write_text(
                f"<annotation><filename>{name}.jpg</filename><size><width>{width}</width><height>{height}</height>"
                f"<depth>3</depth></size>{objects}</annotation>"
            )
    return folder


def main(arguments: list[str] | None = None) -> float | None:
    """Returns the main figure on the validation split."""
    options = argparse.ArgumentParser("voc.py")
    options.add_argument(
        "folder", nargs="?", type=Path, help="a VOCdevkit, or a folder with Annotations and JPEGImages"
    )
    options.add_argument("--model", default="retinanet_tiny_shapes")
    options.add_argument("--epochs", type=int)
    options.add_argument("--images", type=int, default=200, help="how many to draw where no folder is given")
    options.add_argument("--out")
    given = options.parse_args(arguments)

    with tempfile.TemporaryDirectory() as drawn:
        folder = given.folder or write_voc(sdk.datasets.Shapes(given.images), Path(drawn))
        dataset = sdk.datasets.Voc(folder)
        run = sdk.fit(dataset, given.model, epochs=given.epochs, out=given.out)
        report = sdk.evaluate(dataset, run)
        return report[report.main]


if __name__ == "__main__":
    main()
