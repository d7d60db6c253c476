"""From an image file to pixels. Every failure names the file."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from .errors import DatasetError

_EXIF_ORIENTATION = 0x0112

MAX_PIXELS = 178_956_970
"""Images that say to have more are not decoded: Pillow's limit against small files that fill the memory."""


def read_image(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB.

    The EXIF orientation is applied, as OpenCV does by default, unless ``size`` (H, W) is given and only the pixels as
    stored have it: then the annotations were drawn on those. Raises DatasetError for a missing, truncated or
    unreadable file and for one of another size.
    """
    return decode_image(read_bytes(path), path, size)


def decode_image(data: bytes, path: Path | str, size: tuple[int, int] | None = None) -> np.ndarray:
    """As ``read_image``, of the content of a file; ``path`` is for error texts."""
    if not is_complete(data):
        raise DatasetError("image file is truncated", file=path, found=f"{len(data)} bytes without an end marker")
    image = _decode(data, cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise DatasetError("not an image that can be decoded", file=path, found=f"{len(data)} bytes")
    if size is not None and image.shape[:2] != tuple(size):
        stored = _decode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        if stored is None or stored.shape[:2] != tuple(size):
            raise DatasetError(
                "image size differs from the annotated one",
                file=path,
                field="height, width",
                found=image.shape[:2],
                expected=tuple(size),
            )
        image = stored
    return image


def read_map(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """(H, W) of a one-channel image as stored (label and instance maps): uint8, or uint16. Raises DatasetError."""
    pixels = _decode(read_bytes(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 2:
        found = "no image" if pixels is None else f"shape {pixels.shape}"
        raise DatasetError("not a one-channel image", file=path, found=found)
    if size is not None and pixels.shape != tuple(size):
        raise DatasetError("map differs from its image in size", file=path, found=pixels.shape, expected=tuple(size))
    return pixels


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises DatasetError naming it where it is missing or cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DatasetError("file is missing", file=path) from None
    except OSError as error:
        raise DatasetError(f"file cannot be read: {error.strerror}", file=path) from error


def image_header(path: Path, *, verify: bool = False) -> tuple[tuple[int, int], int]:
    """((H, W) as stored, EXIF orientation 1..8) without decoding. verify: compare the checksums of formats that have
    them, which OpenCV does not. Raises DatasetError."""
    try:
        with Image.open(path) as image:
            # Of a PNG without EXIF data in its header, getexif would decode the pixels to look behind them.
            tags = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
            size, orientation = (image.height, image.width), int(tags.get(_EXIF_ORIENTATION, 1) or 1)
        if verify:
            with Image.open(path) as image:
                image.verify()
        return size, orientation
    except FileNotFoundError:
        raise DatasetError("file is missing", file=path) from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"not an image: {error}", file=path) from error


def is_complete(data: bytes) -> bool:
    """Whether a JPEG or PNG has its end marker; true for other formats. OpenCV fills what is missing with gray."""
    if data[:2] == b"\xff\xd8":
        start = _scan_start(data)
        return start is not None and data.find(b"\xff\xd9", start) >= 0
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return data.rfind(b"IEND") >= 0
    return bool(data)


def _scan_start(data: bytes) -> int | None:
    """Position of the first scan of a JPEG: past the headers, which may hold a thumbnail with its own end marker."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xDA:
            return place
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            place += 1 if marker == 0xFF else 2
            continue
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def _decode(data: bytes, flags: int) -> np.ndarray | None:
    if not data or _pixels(data) > MAX_PIXELS:
        return None
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _pixels(data: bytes) -> int:
    """Pixels of an image by its header; 0 where Pillow does not know the format, in which OpenCV has its own limit."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                return image.width * image.height
    except Image.DecompressionBombError:
        return MAX_PIXELS + 1
    except Exception:  # Whatever is wrong with it, OpenCV will say so.
        return 0
