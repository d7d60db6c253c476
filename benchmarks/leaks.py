"""How many planted near duplicates are found, and how much else is taken for one.

    python benchmarks/leaks.py ../shared/data [--honest 10000] [--planted 2000]

Honest images are regions of the photographs below the folder that do not overlap, since there are fewer photographs
than honest images are wanted. Each planted one is an honest one after one to three changes: encoded again, resized,
cropped by up to 10 % of each side, mirrored, made brighter or darker. Says recall and precision, and writes the pairs
that are wrong or missed below ``--out``.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from sdk.datasets.base import ImageInfo
from sdk.datasets.leaks import PLAIN, SIDE, find_leaks

SMALLEST = 72
"""Shorter side of a region in pixels."""
CHANGES = ("encode", "resize", "crop", "mirror", "brightness")


class Pictures:
    """Files of a folder as a dataset without objects."""

    classes = ("object",)
    category_ids = (1,)
    fingerprint = ""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        raise NotImplementedError

    def info(self, index: int) -> ImageInfo:
        return ImageInfo(self.files[index].stem, (0, 0), np.zeros(0, np.int64), str(self.files[index]))

    def evaluator(self):
        raise NotImplementedError


def regions(photographs: list[Path], wanted: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Regions that do not overlap, as many of each photograph as are needed, without those that show nothing."""
    found = []
    for rows in range(1, 64):
        found = [cell for path in photographs for cell in cells(path, rows)]
        if len(found) >= wanted:
            break
    return [found[i] for i in rng.permutation(len(found))[:wanted]]


def cells(path: Path, rows: int) -> list[np.ndarray]:
    image = cv2.imread(str(path))
    height, width = image.shape[:2]
    side = max(SMALLEST, height // rows)
    down, across = height // side, width // side
    if not down or not across:
        return []
    parts = [
        image[i * height // down : (i + 1) * height // down, j * width // across : (j + 1) * width // across]
        for i in range(down)
        for j in range(across)
    ]
    return [part for part in parts if thumbnail(part).std() >= 2 * PLAIN]


def thumbnail(image: np.ndarray) -> np.ndarray:
    return cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def changed(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """The image after one to three changes, and which; every one is encoded again as JPEG afterwards."""
    names = list(rng.choice(CHANGES, size=rng.integers(1, 4), replace=False))
    height, width = image.shape[:2]
    if "crop" in names:
        left, right = np.sort(rng.uniform(0, 0.1, 2))
        top, bottom = np.sort(rng.uniform(0, 0.1, 2))
        x1, x2 = round(left * width), round((1 - (right - left)) * width) if rng.random() < 0.5 else width
        y1, y2 = round(top * height), round((1 - (bottom - top)) * height) if rng.random() < 0.5 else height
        # At most a tenth of each side is gone in all.
        image = image[y1 : max(y2, y1 + int(np.ceil(0.9 * height))), x1 : max(x2, x1 + int(np.ceil(0.9 * width)))]
    if "resize" in names:
        factor = rng.uniform(0.5, 2)
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    if "mirror" in names:
        image = image[:, ::-1]
    if "brightness" in names:
        image = np.clip(image * rng.uniform(0.7, 1.3) + rng.uniform(-20, 20), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(image), names


def main() -> None:
    options = argparse.ArgumentParser("leaks.py")
    options.add_argument("photographs", type=Path)
    options.add_argument("--honest", type=int, default=10_000)
    options.add_argument("--planted", type=int, default=2_000)
    options.add_argument("--out", type=Path, help="folder for the pairs that are wrong or missed")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    rng = np.random.default_rng(given.seed)
    photographs = sorted(path for path in given.photographs.rglob("*.jpg") if cv2.imread(str(path)) is not None)
    print(f"{len(photographs)} photographs")
    with tempfile.TemporaryDirectory() as folder:
        files, kinds = [], {}
        honest = regions(photographs, given.honest, rng)
        for number, image in enumerate(honest):
            files.append(Path(folder) / f"{number:06d}.jpg")
            cv2.imwrite(str(files[-1]), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        sources = rng.permutation(len(honest))[: given.planted]
        for number in sources.tolist():
            image, names = changed(honest[number], rng)
            files.append(Path(folder) / f"{number:06d}-planted.jpg")
            kinds[number] = names
            cv2.imwrite(str(files[-1]), image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 96))])
        wall, cpu = time.perf_counter(), time.process_time()
        pairs = find_leaks({"all": Pictures(files)})
        cpu = time.process_time() - cpu
        print(f"{len(files)} images, {time.perf_counter() - wall:.0f} s, {cpu:.0f} s of CPU time")
        found = {(pair.first.image_id, pair.second.image_id) for pair in pairs}
        planted = {(f"{number:06d}", f"{number:06d}-planted") for number in sources.tolist()}
        print(f"recall {len(found & planted) / len(planted):.4f}, precision {len(found & planted) / len(found):.4f}")
        for name in CHANGES:
            of = {pair for pair in planted if name in kinds[int(pair[0])]}
            print(f"  {name:<10} recall {len(found & of) / max(len(of), 1):.4f} of {len(of)}")
        if given.out is not None:
            shutil.rmtree(given.out, ignore_errors=True)
            given.out.mkdir(parents=True)
            for kind, wrong in (("wrong", found - planted), ("missed", planted - found)):
                for first, second in sorted(wrong)[:50]:
                    both = [cv2.resize(cv2.imread(str(Path(folder) / f"{i}.jpg")), (192, 192)) for i in (first, second)]
                    cv2.imwrite(str(given.out / f"{kind}-{first}-{second}.png"), np.concatenate(both, 1))


if __name__ == "__main__":
    main()
