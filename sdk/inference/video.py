"""Films, cameras and streams as images, and frames as a film.

Shape letters: frames of H x W pixels.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from ..datasets.errors import DatasetError
from ..errors import SdkError
from ..reports.progress import say

FILMS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
"""How the names of films end."""
STREAM = re.compile(r"(rtsp|rtmp|udp|rtp)s?://", re.IGNORECASE)
"""What the address of a running stream begins with; it cannot be fetched first."""
CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}
"""Films that can be written, and the codec of each that OpenCV brings itself."""
RATE = 25.0
"""Frames a second where nothing says how many."""


@dataclass(frozen=True)
class Frame:
    """One image of a film, a camera or a stream.

    film: its file, the number of a camera, or an address. index: from 0 on. rate: frames a second. shown: (H, W, 3)
    uint8 RGB, or none where it is read again from the file when it is asked for.
    """

    film: Path | int | str
    index: int
    rate: float
    shown: np.ndarray | None = None

    @property
    def kept(self) -> Frame:
        """What a prediction keeps: the frames of a whole film do not fit into memory."""
        return replace(self, shown=None) if isinstance(self.film, Path) else self

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB. Raises DatasetError where the film is gone."""
        if self.shown is not None:
            return self.shown
        capture = _opened(self.film)
        try:
            # What lies between key frames is found from the one before, so that seeking is not exact in every film.
            capture.set(cv2.CAP_PROP_POS_FRAMES, self.index)
            if round(capture.get(cv2.CAP_PROP_POS_FRAMES)) != self.index:
                capture = _opened(self.film)
                for _ in range(self.index):
                    capture.grab()
            good, frame = capture.read()
        finally:
            capture.release()
        if not good:
            raise DatasetError("frame cannot be read", file=self.film, where=f"frame {self.index}")
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def is_film(path: Path) -> bool:
    """Whether a file is called as films are."""
    return path.suffix.lower() in FILMS


def frames(film: Path | int | str) -> Iterator[Frame]:
    """The frames of a film, a camera or a stream, one after the other.

    Raises:
        DatasetError: when a file is missing or no film.
        SdkError: when there is no such camera or stream.
    """
    capture = _opened(film)
    rate = capture.get(cv2.CAP_PROP_FPS)
    rate = rate if 0 < rate < 1000 else RATE
    expected, index = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0
    try:
        while True:
            good, frame = capture.read()
            if not good:
                break
            yield Frame(film, index, rate, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            index += 1
    finally:
        capture.release()
    if isinstance(film, Path):
        if index == 0:
            raise DatasetError("no frame of this film can be decoded", file=film)
        if index < expected:
            say(f"{film}: {index:,} frames could be read, of the {expected:,} that the file names")


def _opened(film: Path | int | str) -> cv2.VideoCapture:
    if isinstance(film, Path) and not film.is_file():
        raise DatasetError("file is missing", file=film)
    capture = cv2.VideoCapture(os.fspath(film) if isinstance(film, Path) else film)
    if not capture.isOpened():
        if isinstance(film, Path):
            raise DatasetError("not a film that can be decoded", file=film)
        raise SdkError(f"{'camera' if isinstance(film, int) else 'stream'} {film}: cannot be opened")
    return capture


class FilmFile:
    """A film that is written frame by frame. Raises SdkError naming it where it cannot be."""

    def __init__(self, path: Path, rate: float, size: tuple[int, int]) -> None:
        self.path, self.size = path, size
        codec = cv2.VideoWriter.fourcc(*CODECS[path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(path), codec, rate, size[::-1])
        if not self._writer.isOpened():
            raise SdkError(f"{path}: cannot be written as a film of {size[1]} x {size[0]}")

    def add(self, pixels: np.ndarray) -> None:
        """Writes an (H, W, 3) uint8 RGB frame; all have one size."""
        if pixels.shape[:2] != self.size:
            raise SdkError(
                f"{self.path}: frames of one size make a film; found {pixels.shape[1]} x {pixels.shape[0]} after "
                f"{self.size[1]} x {self.size[0]}; write pictures to a folder instead"
            )
        self._writer.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Writes the end of the file."""
        self._writer.release()
