"""Small images through the loader with more and more workers: ``python -m benchmarks.loading [--images N]``.

"ours" of each row has so many workers; its peer is one worker, and the goal nine tenths of the cores' share.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sdk.datasets.loader import Loader
from sdk.datasets.reading import read_image
from sdk.datasets.sample import Sample
from sdk.datasets.transforms import Preprocessing
from sdk.inference.batching import CollateViews

from .measuring import Case, parser, run

DIFFERENT = 200
"""Files, which are read again and again."""


class SmallImages:
    """Files of 160 x 160 without objects."""

    classes = ("thing",)
    category_ids = (1,)
    fingerprint = "small images"

    def __init__(self, folder: Path, count: int) -> None:
        self.count, self.paths = count, []
        random = np.random.default_rng(0)
        for number in range(min(DIFFERENT, count)):
            coarse = random.integers(0, 255, (20, 20, 3), np.uint8)
            self.paths.append(folder / f"{number}.jpg")
            cv2.imwrite(str(self.paths[-1]), cv2.resize(coarse, (160, 160), interpolation=cv2.INTER_CUBIC))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        nothing = np.zeros(0, np.int64)
        image = read_image(self.paths[index % len(self.paths)])
        return Sample(image, np.zeros((0, 4), np.float32), nothing, nothing.astype(bool), image_id=index)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures, and returns the figures."""
    made = parser("loading", __doc__ or "", turns=3)
    made.add_argument("--images", type=int, default=20_000)
    options = made.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        dataset = SmallImages(Path(folder), 64 if options.quick else options.images)
        return run("loading", cases(dataset), options, {})


def cases(dataset: SmallImages) -> Iterator[Case]:
    """One row for each power of two up to the cores."""
    cores = os.cpu_count() or 1
    alone = through(dataset, 1)
    for workers in (2**power for power in range(1, cores.bit_length()) if 2**power <= cores):
        yield Case(
            f"{len(dataset):,} images of 160 x 160 with {workers} workers / with one",
            through(dataset, workers),
            {"one worker": alone},
            target={"one worker": 0.9 * workers},
            per=len(dataset),
        )


def through(dataset: SmallImages, workers: int) -> Callable[[], object]:
    """Goes through the dataset once."""
    collate = CollateViews(Preprocessing(size=(160, 160)))
    loader = Loader(dataset, batch_size=32, collate=collate, workers=workers)  # type: ignore[arg-type]
    return lambda: sum(1 for _ in loader)


if __name__ == "__main__":
    main()
