"""A dataset of your own: a plain class with a few members. Nothing is registered, nothing inherited."""

from __future__ import annotations

import argparse

import cv2
import numpy as np

import sdk
from sdk.datasets import ImageInfo, Sample
from sdk.evaluators.coco import CocoEvaluator


class Balls:
    """Bright discs on a dark ground, two classes by size; yours would read files in ``__getitem__``."""

    classes = ("small", "large")
    category_ids = (1, 2)

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self.fingerprint = f"balls-{count}-{seed}"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.seed, index))
        image = rng.integers(0, 60, (96, 128, 3), dtype=np.uint8)
        labels = rng.integers(0, 2, rng.integers(0, 4))
        boxes = np.zeros((len(labels), 4), np.float32)
        for i, label in enumerate(labels):
            radius = int(rng.integers(7, 11) if label == 0 else rng.integers(16, 22))
            x, y = int(rng.integers(radius, 128 - radius)), int(rng.integers(radius, 96 - radius))
            cv2.circle(image, (x, y), radius, [int(v) for v in rng.integers(120, 255, 3)], -1)
            boxes[i] = x - radius, y - radius, x + radius + 1, y + radius + 1
        return Sample(image, boxes, labels.astype(np.int64), np.zeros(len(labels), bool), image_id=index)

    def info(self, index: int) -> ImageInfo:
        return ImageInfo(index, (96, 128), self[index].labels)

    def evaluator(self) -> CocoEvaluator:
        return CocoEvaluator(self, kinds=("bbox",))


def main(arguments: list[str] | None = None) -> float | None:
    """Returns the AP on the validation images."""
    options = argparse.ArgumentParser("your_own_dataset.py")
    options.add_argument("--images", type=int, default=160)
    options.add_argument("--epochs", type=int, default=6)
    options.add_argument("--out")
    given = options.parse_args(arguments)

    train, val = Balls(given.images, seed=0), Balls(max(1, given.images // 4), seed=1)
    run = sdk.fit(train, "retinanet_tiny_shapes", validation=val, epochs=given.epochs, out=given.out)
    report = sdk.evaluate(val, run)
    return report["bbox/AP"]


if __name__ == "__main__":
    main()
