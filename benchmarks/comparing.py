"""How long a comparison takes: ``python -m benchmarks.comparing [--images 5000] [--resamples 2000]``.

Random data of COCO's size: 5,000 images, 36,000 objects of 80 classes, 700,000 detections of either detector, compared
in every figure of COCO's protocol (ten IoU thresholds), by class and by size. Told are the seconds without scoring, and
the process's peak of memory.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import torch

from sdk.datasets.index import Builder
from sdk.evaluators.coco import CocoEvaluator
from sdk.insight.comparison import compare_reports
from sdk.models.structures import Detections

CLASSES = 80
SIDE = 640


class Random:
    """A data set without pictures."""

    classes = tuple(f"class {k}" for k in range(CLASSES))
    category_ids = tuple(range(CLASSES))
    fingerprint = "random"

    def __init__(self, images: int) -> None:
        draw, builder = np.random.default_rng(0), Builder()
        for image in range(images):
            builder.image(image, (SIDE, SIDE), "")
            for _ in range(draw.poisson(7.3)):
                sides = np.exp(draw.normal(4, 0.8, 2)).clip(4, SIDE / 2)
                start = draw.uniform(0, SIDE - sides)
                stated = (*start, *sides)
                box = np.concatenate([start, start + sides])
                label = int(CLASSES * draw.random() ** 2)
                builder.annotation(len(builder) + 1, image, box=box, stated=stated, label=label, area=sides.prod())
        self.annotations = builder.finish()

    def __len__(self) -> int:
        return len(self.annotations.image_ids)


def detections(dataset: Random, image: int, draw: np.random.Generator, count: int) -> Detections:
    """Objects found with noise, and false ones up to ``count``."""
    rows = dataset.annotations.rows(image)
    boxes, labels = dataset.annotations.boxes[rows], dataset.annotations.labels[rows]
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    boxes = boxes + draw.normal(0, 0.06, boxes.shape) * sides
    more = max(count - len(boxes), 0)
    size = np.exp(draw.normal(4, 0.8, (more, 2)))
    start = draw.uniform(0, SIDE, (more, 2))
    scores = np.concatenate([draw.beta(5, 2, len(boxes)), draw.beta(1, 6, more)])
    corners = np.sort(boxes.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    boxes = np.concatenate([corners, np.hstack([start, start + size])])
    labels = np.concatenate([labels, draw.integers(0, CLASSES, more)])
    order = np.argsort(-scores)
    parts = boxes[order].astype(np.float32), scores[order].astype(np.float32), labels[order].astype(np.int64)
    return Detections(*(torch.from_numpy(part) for part in parts))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=5000)
    options.add_argument("--detections", type=int, default=140)
    options.add_argument("--resamples", type=int, default=2000)
    given = options.parse_args()
    dataset, reports = Random(given.images), []
    for seed in (1, 2):
        draw, evaluator = np.random.default_rng(seed), CocoEvaluator(dataset, ("bbox",))  # type: ignore[arg-type]
        for image in range(given.images):
            evaluator.update([image], [detections(dataset, image, draw, given.detections)])
        reports.append(evaluator.compute())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, worked = time.perf_counter(), time.process_time()
    comparison = compare_reports(reports[0], reports[1], resamples=given.resamples)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{given.images} images, {reports[0].counts.detections} detections, {len(comparison.rows)} rows, "
        f"{given.resamples} resamples: {seconds:.1f} s ({worked:.1f} s of processor time), "
        f"peak {peak / 1024:.0f} MB, {(peak - before) / 1024:.0f} MB of it by the comparison"
    )


if __name__ == "__main__":
    main()
