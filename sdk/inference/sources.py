"""Whatever holds an image, as pixels."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..datasets.reading import read_image
from ..errors import SdkError

T = TypeVar("T")
R = TypeVar("R")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def sources_of(images: Any) -> tuple[bool, list[Any]]:
    """Whether it is one image, and the images as paths and pixels."""
    if isinstance(images, (str, os.PathLike)):
        path = Path(images)
        if not path.is_dir():
            return True, [path]
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise SdkError(f"{path}: no image in this folder; expected files that end in {', '.join(IMAGE_SUFFIXES)}")
        return False, files
    if isinstance(images, Tensor) and images.ndim == 4:
        return False, list(images)
    if isinstance(images, (list, tuple)):
        return False, [source for part in images for source in sources_of(part)[1]]
    return True, [images]


def as_pixels(source: Any) -> np.ndarray:
    """One image as (H, W, 3) uint8 RGB."""
    if isinstance(source, Path):
        return read_image(source)
    if isinstance(source, np.ndarray):
        if source.ndim == 3 and source.shape[2] == 3 and source.dtype == np.uint8:
            return np.ascontiguousarray(source)
        raise SdkError(f"array: expected (H, W, 3) of uint8, found {source.shape} of {source.dtype}")
    if isinstance(source, Tensor):
        if source.ndim != 3 or source.shape[0] != 3:
            raise SdkError(f"tensor: expected (3, H, W), found {tuple(source.shape)}")
        if source.is_floating_point():
            if not bool(torch.isfinite(source).all()) or float(source.min()) < 0 or float(source.max()) > 1:
                raise SdkError("tensor: expected floating point values in 0..1; a normalized batch is no image")
            source = (source * 255).round()
        return source.to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    if hasattr(source, "convert"):
        return np.array(source.convert("RGB"))
    raise SdkError(f"{type(source).__name__}: expected a path, an array, a tensor or a PIL image")


def ahead(work: Callable[[T], R], items: Iterable[T], threads: int = 2) -> Iterator[R]:
    """``work`` of every item, in order, done by ``threads`` threads while the one before is being used.

    At most ``threads`` results are held besides the one in use; an error in ``work`` is raised where its result is due.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def picture_names(sources: Sequence[Any]) -> list[str]:
    """What the pictures are called: the file's name, or the image's number; with a number where that is taken."""
    names: dict[str, None] = {}
    for place, source in enumerate(sources):
        stem = source.stem if isinstance(source, Path) else f"{place:06d}"
        numbered = (f"{stem}-{number}" for number in itertools.count(2))
        names[next(name for name in itertools.chain([stem], numbered) if name not in names)] = None
    return list(names)
