"""KITTI's object detection: a text file of boxes beside every image.

Layouts that are recognized::

    training/image_2/000000.png  training/label_2/000000.txt   (testing/image_2/... has no labels)
    image_2/  label_2/      images/  labels/      data/  labels/      and these in folders of splits

A line is ``type truncated occluded alpha x1 y1 x2 y2 height width length x y z rotation``, perhaps with a score; the
box is in pixels. ``DontCare`` regions are ignored in every class.
Format: the development kit of https://www.cvlibs.net/datasets/kitti/eval_object.php
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from .index import Index
from .listing import ListedDataset, Listing, by_split_folder, find_image, folder_state, in_label_order, is_number

LABELS = ("label_2", "labels", "label")
IMAGES = ("image_2", "images", "data", "image")
DONT_CARE = "DontCare"
WORDS = (15, 16)
"""Words of a line: all of the format, or these and a score."""


class Kitti(ListedDataset):
    """A dataset in KITTI's format, scored by the COCO protocol; root: the folder above images and labels, or above
    folders of splits."""

    layout: ClassVar[str] = "kitti"
    names_occur: ClassVar[bool] = True

    @classmethod
    def parts(cls, root: Path) -> dict[str, Any]:
        if root.is_file():
            return {}
        if folders_of(root) is not None:
            return {"": folders_of(root)}
        found = by_split_folder(root, lambda folder: folders_of(folder) is not None)
        parts = {split: folders_of(folder) for split, folder in found.items()}
        return {"": parts["train"]} if list(parts) == ["train"] else parts

    @classmethod
    def state(cls, root: Path, sources: Any) -> str:
        return folder_state(sources)

    @classmethod
    def looked_at(cls, folder: Path, index: Index) -> Iterable[str]:
        # ``state`` covers the folder of images.
        return ()

    @classmethod
    def read(cls, root: Path, sources: Any) -> Listing:
        labels, images = sources
        listing = Listing(root)
        ignored: list[tuple[int, Path, str, tuple[float, ...]]] = []
        for file in sorted(labels.glob("*.txt")):
            image = find_image(file.stem, [images])
            if image is None:
                listing.fault("image is missing", file, found=file.stem)
                continue
            place = listing.image(image)
            for number, line in enumerate(_lines(file) if place is not None else (), 1):
                words, where = line.split(), f"line {number}"
                try:
                    box = tuple(float(word) for word in words[4:8])
                except ValueError:
                    box = ()
                if len(words) not in WORDS or len(box) != 4:
                    listing.fault("not an object", file, where, found=line, expected="15 values")
                elif words[0] == DONT_CARE:
                    ignored.append((place, file, where, box))  # type: ignore[arg-type]
                else:
                    listing.object(place, words[0], file=file, where=where, box=box)  # type: ignore[arg-type]
        for place, file, where, box in ignored:
            for name in in_label_order(listing.names):
                listing.object(place, name, file=file, where=where, box=box, ignore=True, crowd=True)
        return listing


def folders_of(folder: Path) -> tuple[Path, Path] | None:
    """The folders of labels and of images, where a folder has both and the labels are KITTI's."""
    labels = next((folder / name for name in LABELS if (folder / name).is_dir()), None)
    images = next((folder / name for name in IMAGES if (folder / name).is_dir()), None)
    if labels is None or images is None:
        return None
    # One broken line does not make it another layout.
    lines = itertools.islice((line.split() for file in labels.glob("*.txt") for line in _lines(file)), 20)
    fits = (len(words) in WORDS and not is_number(words[0]) and all(map(is_number, words[1:])) for words in lines)
    return (labels, images) if any(fits) else None


def _lines(file: Path) -> Iterator[str]:
    return (line for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip())
