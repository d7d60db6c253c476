"""Whatever holds an image, as pixels."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from ..datasets.base import DetectionDataset
from ..datasets.errors import DatasetError, Fault
from ..datasets.listing import IMAGE_SUFFIXES
from ..datasets.reading import decode_image, read_image
from ..errors import SdkError
from ..opening import carries_splits, is_dataset, scored_split, what_is
from .video import STREAM, Frame, frames, is_film

T = TypeVar("T")
R = TypeVar("R")

MANY = 4
"""From so many images on it pays to make a copy of the detector ready for them."""
ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")
"""What an address begins with; a letter alone is a drive of Windows. Of two slashes ``Path`` leaves one."""


@dataclass(frozen=True)
class Source:
    """One image that has not been read yet.

    content: its path, its file as bytes, an array, a tensor, a PIL image, a frame of a film, or its place in a dataset.
    image_id: of a dataset its own; of a file its path below what was given, without the ending; else its number.
    path: its file, where it has one. found: it was found in a folder or by a pattern, and not named.
    bgr: an array has its channels in OpenCV's order.
    """

    content: Any
    image_id: Any = None
    path: Path | None = None
    found: bool = False
    bgr: bool = False

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB. Raises DatasetError or SdkError where it is none."""
        return as_pixels(self.content, self.bgr)

    @property
    def kept(self) -> Source:
        """What a prediction keeps of it."""
        return replace(self, content=self.content.kept) if isinstance(self.content, Frame) else self

    def fault(self, error: Exception) -> Fault:
        """Why it cannot be read, as data."""
        file, where = None if self.path is None else str(self.path), f"image {self.image_id}"
        if isinstance(error, DatasetError):
            found, expected = (None if it is None else str(it) for it in (error.found, error.expected))
            return Fault(error.problem, file, where, error.field, found, expected)
        return Fault(str(error), file, where)


@dataclass(frozen=True)
class Sources:
    """The images that a verb was given, found while they are gone through. single: it was one image, and no sequence.
    many: there are ``MANY`` or more, or nobody knows."""

    items: Iterator[Source]
    single: bool
    many: bool


@dataclass(frozen=True)
class Place:
    """Where an image lies in a dataset, and what is the same for all images of it."""

    dataset: DetectionDataset
    index: int
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]


def sources_of(images: Any, *, recursive: bool = False, bgr: bool = False) -> Sources:
    """The images, each with what it is called.

    Args:
        images: as of ``sdk.predict``.
        recursive: look into the folders inside a folder too.
        bgr: arrays have their channels in OpenCV's order.

    Raises:
        SdkError: for an address, a folder without images, and a pattern that nothing fits.
    """
    single, count, items = _sources(images, recursive)
    return Sources(_numbered(items, bgr), single, count is None or count >= MANY)


def _numbered(items: Iterable[Source], bgr: bool) -> Iterator[Source]:
    for place, source in enumerate(items):
        yield replace(source, image_id=f"{place:06d}" if source.image_id is None else source.image_id, bgr=bgr)


def _sources(images: Any, recursive: bool) -> tuple[bool, int | None, Iterable[Source]]:
    """Whether it is one image, how many where that is known without looking, and they."""
    if isinstance(images, int) and not isinstance(images, bool):
        return False, None, _of_film(images, f"camera{images}")
    if isinstance(images, (str, os.PathLike)):
        return _of_path(Path(images), str(images), recursive)
    if isinstance(images, (Tensor, np.ndarray)) and images.ndim == 4:
        return False, len(images), map(Source, images)
    if isinstance(images, (bytes, bytearray, memoryview)):
        return True, 1, [Source(bytes(images))]
    if isinstance(images, (Tensor, np.ndarray)):
        return True, 1, [Source(images)]
    if is_dataset(images) or carries_splits(images):
        dataset = scored_split(images)
        return False, len(dataset), _of_dataset(dataset)
    if isinstance(images, (list, tuple)):
        if len(images) >= MANY:
            return False, len(images), itertools.chain.from_iterable(_sources(one, recursive)[2] for one in images)
        parts = [_sources(one, recursive) for one in images]
        counts = [count for _, count, _ in parts if count is not None]
        items = itertools.chain.from_iterable(items for _, _, items in parts)
        return False, sum(counts) if len(counts) == len(parts) else None, items
    if isinstance(images, Iterable) and not isinstance(images, Mapping):
        return False, None, itertools.chain.from_iterable(_sources(_own(one), recursive)[2] for one in images)
    return True, 1, [Source(images)]


def _own(one: Any) -> Any:
    """An image that an iterator gave, which may put the next one into the same memory."""
    if isinstance(one, np.ndarray):
        return one.copy()
    return one.clone() if isinstance(one, Tensor) else one


def _of_path(path: Path, text: str, recursive: bool) -> tuple[bool, int | None, Iterable[Source]]:
    if STREAM.match(text):
        return False, None, _of_film(text, "stream")
    if is_film(path) and not set(text) & set("*?["):
        return False, None, _of_film(path, path.stem)
    if path.is_dir():
        files = _files(path, recursive)
        first = next(files, None)
        if first is None:
            more = "" if recursive else "; recursive=True looks into the folders inside too"
            raise SdkError(f"{path}: no image in this folder; expected files that end in {_ENDINGS}{more}")
        return False, None, (_found(file, path) for file in itertools.chain([first], files))
    if not path.exists() and ADDRESS.match(text):
        raise SdkError(
            f"{text}: is an address; fetch it first, for example with `curl -O`, and give the file, or give the bytes "
            "that urllib.request.urlopen(address).read() gives"
        )
    if not path.exists() and any(character in text for character in "*?["):
        files = [Path(name) for name in sorted(glob.glob(text, recursive=True)) if _is_image(name)]
        if not files:
            raise SdkError(f"{text}: no image fits this pattern; expected files that end in {_ENDINGS}")
        fixed = Path(*itertools.takewhile(lambda part: not set(part) & set("*?["), path.parent.parts))
        return False, None, (_found(file, fixed) for file in files)
    return True, 1, [Source(path, path.stem, path)]


_ENDINGS = ", ".join(IMAGE_SUFFIXES)


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _files(folder: Path, recursive: bool) -> Iterator[Path]:
    """The images of a folder by name; then, where ``recursive``, those of the folders inside, one after the other."""

    def fail(error: OSError) -> None:
        raise SdkError(f"{error.filename}: this folder cannot be listed: {error.strerror}") from error

    for root, folders, names in os.walk(folder, onerror=fail):
        # In this order os.walk goes on.
        folders.sort()
        yield from (Path(root, name) for name in sorted(names) if _is_image(name))
        if not recursive:
            return


def _found(file: Path, below: Path) -> Source:
    return Source(file, file.relative_to(below).with_suffix("").as_posix(), file, found=True)


def _of_film(film: Path | int | str, name: str) -> Iterator[Source]:
    path = film if isinstance(film, Path) else None
    for frame in frames(film):
        yield Source(frame, f"{name}/{frame.index:06d}", path)


def _of_dataset(dataset: DetectionDataset) -> Iterator[Source]:
    classes, category_ids = tuple(dataset.classes), tuple(dataset.category_ids)
    for index in range(len(dataset)):
        info = dataset.info(index)
        path = None if info.path is None else Path(info.path)
        # A number of NumPy is a plain one in files.
        image_id = info.image_id.item() if isinstance(info.image_id, np.generic) else info.image_id
        yield Source(Place(dataset, index, classes, category_ids), image_id, path)


def as_pixels(content: Any, bgr: bool = False) -> np.ndarray:
    """One image as (H, W, 3) uint8 RGB. content, bgr: as of ``Source``.

    Raises:
        DatasetError: when a file is missing or no image.
        SdkError: when something else is no image.
    """
    if isinstance(content, Path):
        return read_image(content)
    if isinstance(content, bytes):
        return decode_image(content, "bytes")
    if isinstance(content, Frame):
        return content.pixels()
    if isinstance(content, Place):
        return _from_array(np.asarray(content.dataset[content.index].image), "array")
    if isinstance(content, np.ndarray):
        pixels = _from_array(content, "array")
        return np.ascontiguousarray(pixels[:, :, ::-1]) if bgr else pixels
    if isinstance(content, Tensor):
        if content.ndim != 3 or content.shape[0] not in (1, 3, 4):
            raise SdkError(f"tensor: expected (3, H, W), found {tuple(content.shape)}")
        content = content.detach().float() if content.is_floating_point() else content.detach()
        return _from_array(content.permute(1, 2, 0).cpu().numpy(), "tensor")
    if hasattr(content, "convert"):
        try:
            return _from_array(np.array(content.convert("RGB")), "image")
        except (OSError, SyntaxError) as error:
            raise SdkError(f"PIL image: cannot be read: {error}") from error
    raise SdkError(f"expected a path, an array, a tensor or a PIL image, found {what_is(content)}")


def _from_array(values: np.ndarray, kind: str) -> np.ndarray:
    """(H, W, 3) uint8 of gray or colour pixels of uint8 or of floating point values in 0..1; opacity is left out."""
    channels = values.shape[2] if values.ndim == 3 else 1
    floating = np.issubdtype(values.dtype, np.floating)
    if values.ndim not in (2, 3) or channels not in (1, 3, 4) or not (floating or values.dtype == np.uint8):
        raise SdkError(
            f"{kind}: expected (H, W, 3), gray (H, W) or RGBA (H, W, 4), of uint8 or floating point values in 0..1; "
            f"found {values.shape} of {values.dtype}"
        )
    if not values.size:
        raise SdkError(f"{kind}: expected pixels, found none: {values.shape}")
    if floating:
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise SdkError(f"{kind}: expected floating point values in 0..1; a normalized batch is no image")
        values = (values.astype(np.float32) * 255).round().astype(np.uint8)
    values = values[:, :, None] if values.ndim == 2 else values
    return np.ascontiguousarray(np.repeat(values, 3, axis=2) if channels == 1 else values[:, :, :3])


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of ``size``, the last one shorter; none is taken before its list is asked for."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


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
