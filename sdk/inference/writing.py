"""Predictions as files, written while they are made.

What is written has the ending ``.part`` until all of it is there, and nothing that exists is written over.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import shutil
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ..errors import SdkError
from ..reports.pictures import save_image
from ..reports.progress import say
from ..results.files import named_errors, sync_folder
from .prediction import Prediction
from .video import CODECS, RATE, FilmFile, Frame, is_film


class Ids:
    """An id for each image; a text that is taken gets a number behind it."""

    def __init__(self) -> None:
        self._taken: set[Any] = set()

    def add(self, image_id: Any) -> Any:
        """The id of one more image. Raises SdkError where an id that is no text was given before."""
        free = image_id
        if isinstance(image_id, str):
            numbered = (f"{image_id}-{number}" for number in itertools.count(2))
            free = next(name for name in itertools.chain([image_id], numbered) if name not in self._taken)
        elif image_id in self._taken:
            raise SdkError(f"two images have the id {image_id!r}; predict on one dataset at a time to write one file")
        self._taken.add(free)
        return free


class Writer(ABC):
    """Takes predictions one after the other, in a ``with`` statement that says whether all of them came."""

    draws = False
    """Whether it wants ``drawn``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images = self.objects = 0
        self._ids = Ids()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(complete=kind is None)

    def add(self, prediction: Prediction) -> None:
        """Writes one more prediction. Raises SdkError and RunError, which name the file."""
        self.write(prediction)
        self.images += 1
        self.objects += len(prediction)

    def open(self) -> None:
        """Makes what is written to."""
        self.path.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def write(self, prediction: Prediction) -> None:
        """Writes one more prediction."""

    def close(self, complete: bool) -> None:
        """Ends it. complete: all predictions came."""
        if complete:
            say(f"{self.images:,} images, {self.objects:,} objects: {self.path}")


class Pictures(Writer):
    """A folder of pictures with the detections, PNG files; earlier ones of the same name are replaced."""

    draws = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if path.exists() and not path.is_dir():
            raise SdkError(f"{path}: is a file; expected a folder for the pictures, or {_EXPECTED}")
        self._apart: set[Path] = set()

    def write(self, prediction: Prediction) -> None:
        """Writes ``drawn``. Raises SdkError where the image was read from this folder."""
        assert prediction.drawn is not None
        self._check(prediction)
        path = self.path / f"{self._ids.add(_path_of(prediction.image_id))}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(path, prediction.drawn)

    def _check(self, prediction: Prediction) -> None:
        if prediction.path is None or prediction.path.parent in self._apart:
            return
        own, folder = self.path.resolve(), prediction.path.parent.resolve()
        found = prediction.source is not None and prediction.source.found
        if folder == own or (found and own in folder.parents):
            raise SdkError(f"{self.path}: images are read from this folder; give another one for the pictures")
        self._apart.add(prediction.path.parent)


class PartWriter(Writer):
    """Something that is named ``path`` with ``.part`` behind it until it is whole."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.part = part_of(path)
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise SdkError(f"{path}: is there already, and nothing is overwritten; give another name")
        if self.part.exists():
            raise SdkError(f"{self.part}: was left by another try; remove it, or give another name")

    def close(self, complete: bool) -> None:
        """Names it where it is whole, else says where it is."""
        if complete:
            with named_errors(self.path):
                os.replace(self.part, self.path)
                sync_folder(self.path.parent)
        elif self.images:
            say(f"stopped: the objects of {self.images:,} images are in {self.part}")
        else:
            remove(self.part)
        super().close(complete)


class Yolo(PartWriter):
    """A folder with a text file an image, with a line an object: label, centre x and y, width and height as shares of
    the image, score. Class names lie beside them in ``data.yaml``."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._named = False

    def open(self) -> None:
        """Makes the unfinished folder."""
        self.part.mkdir(parents=True)

    def write(self, prediction: Prediction) -> None:
        """Writes the file of an image; without objects it is empty."""
        assert prediction.size is not None
        if not self._named and prediction.classes is not None:
            names = [f"  {label}: {json.dumps(n, ensure_ascii=False)}\n" for label, n in enumerate(prediction.classes)]
            _write_new(self.part / "data.yaml", "names:\n" + "".join(names))
        self._named = True
        height, width = prediction.size
        lines = []
        # A number in a film stands last, where there is one.
        tracks = prediction.tracks() or [None] * len(prediction)
        found = zip(prediction.labels.tolist(), prediction.boxes.tolist(), prediction.scores.tolist(), tracks)
        for label, (x1, y1, x2, y2), score, number in found:
            values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height, score)
            shown = [f"{value:.10g}" for value in values] + ([] if number is None else [str(number)])
            lines.append(f"{label} {' '.join(shown)}\n")
        path = self.part / f"{self._ids.add(_path_of(prediction.image_id))}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_new(path, "".join(lines))


class FileWriter(PartWriter):
    """One file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if path.is_dir():
            raise SdkError(f"{path}: is a folder; give another name")
        self.file: IO[bytes]

    def open(self) -> None:
        """Makes the unfinished file."""
        with named_errors(self.part):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(self.part, "xb")  # noqa: SIM115

    def write(self, prediction: Prediction) -> None:
        """Writes an image's objects under an id of its own."""
        with named_errors(self.part):
            self.put(replace(prediction, image_id=self._ids.add(prediction.image_id)))

    @abstractmethod
    def put(self, prediction: Prediction) -> None:
        """Writes one more prediction to ``file``."""

    def finish(self) -> None:
        """Writes what stands at the end of ``file``."""

    def close(self, complete: bool) -> None:
        """As of ``PartWriter``, when all of the file is on the disk."""
        with named_errors(self.part), self.file:
            if complete:
                self.finish()
            self.file.flush()
            os.fsync(self.file.fileno())
        super().close(complete)


class CocoResults(FileWriter):
    """A COCO results file (https://cocodataset.org/#format-results)."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._before = b"[\n"

    def put(self, prediction: Prediction) -> None:
        """Writes the entries of an image."""
        for entry in prediction.to_coco():
            self.file.write(self._before + json.dumps(entry).encode())
            self._before = b",\n"

    def finish(self) -> None:
        """Closes the list."""
        self.file.write(b"\n]\n" if self._before == b",\n" else b"[]\n")


class JsonLines(FileWriter):
    """An image a line, as of ``Prediction.to_dict``."""

    def put(self, prediction: Prediction) -> None:
        """Writes the line of an image."""
        self.file.write((json.dumps(prediction.to_dict(), ensure_ascii=False) + "\n").encode())


COLUMNS = ("image_id", "path", "height", "width", "class", "category_id", "score", "x1", "y1", "x2", "y2")
"""Of tables with an object a row; then ``track_id`` where objects are followed, and in Parquet ``mask``, the run
lengths of COCO's compressed form."""
TRACK = "track_id"


def rows_of(prediction: Prediction) -> list[dict[str, Any]]:
    """The objects of an image by ``COLUMNS``, ``track_id`` and ``mask``."""
    told = prediction.to_dict()
    image = {name: told[name] for name in ("image_id", "path", "height", "width")}
    rows = []
    for one in told["objects"]:
        x1, y1, x2, y2 = one["box"]
        mask = one.get("mask", {}).get("counts")
        values = {
            TRACK: one.get(TRACK),
            "class": one["class"],
            "category_id": one.get("category_id"),
            "score": one["score"],
        }
        rows.append({**image, **values, "x1": x1, "y1": y1, "x2": x2, "y2": y2, "mask": mask})
    return rows


class Csv(FileWriter):
    """An object a row; masks have no place in it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._columns: tuple[str, ...] = ()

    def put(self, prediction: Prediction) -> None:
        """Writes the rows of an image, before the first one the heads of the columns."""
        if not self._columns:
            self._head((*COLUMNS, TRACK) if prediction.track_ids is not None else COLUMNS)
        self._write([[row[name] for name in self._columns] for row in rows_of(prediction)])

    def finish(self) -> None:
        """Writes the heads of the columns where there was no image."""
        if not self._columns:
            self._head(COLUMNS)

    def _head(self, columns: tuple[str, ...]) -> None:
        self._columns = columns
        self._write([columns])

    def _write(self, rows: Any) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        self.file.write(text.getvalue().encode())


class Parquet(FileWriter):
    """An object a row; ``mask`` is there where the detector finds masks."""

    ROWS = 5_000
    """That are kept until they are written together."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            import pyarrow
            import pyarrow.parquet
        except ModuleNotFoundError as error:
            raise ImportError("writing Parquet needs pyarrow: pip install 'detection-sdk[parquet]'") from error
        self._arrow = pyarrow
        self._writer: Any = None
        self._rows: list[dict[str, Any]] = []
        self._schema: Any = None

    def put(self, prediction: Prediction) -> None:
        """Keeps the rows of an image, and writes them where there are enough."""
        if self._schema is None:
            self._schema = self._schema_of(prediction)
        text = self._schema.field("image_id").type == self._arrow.string()
        if text != isinstance(prediction.image_id, str):
            raise SdkError(
                f"{self.path}: image id {prediction.image_id!r}: expected {'text' if text else 'a number'}, as before; "
                "write images of folders and of datasets to files of their own"
            )
        self._rows += rows_of(prediction)
        if len(self._rows) >= self.ROWS:
            self._flush()

    def finish(self) -> None:
        """Writes the rest of the rows and the table of contents."""
        self._flush()
        self._writer.close()

    def close(self, complete: bool) -> None:
        """As of ``FileWriter``; what is unfinished has its table of contents too."""
        if not complete and self.images:
            # Where that fails too, what went wrong first is what is told.
            with suppress(OSError, ValueError):
                self.finish()
        super().close(complete)

    def _flush(self) -> None:
        self._schema = self._schema or self._schema_of(None)
        if self._writer is None:
            self._writer = self._arrow.parquet.ParquetWriter(self.file, self._schema)
        self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []

    def _schema_of(self, first: Prediction | None) -> Any:
        arrow = self._arrow
        text, number, real = arrow.string(), arrow.int64(), arrow.float32()
        image_id = text if first is None or isinstance(first.image_id, str) else number
        columns = [*zip(COLUMNS, (image_id, text, number, number, text, number, *[real] * 5))]
        if first is not None:
            columns += [(TRACK, number)] if first.track_ids is not None else []
            columns += [("mask", text)] if first.masks is not None else []
        return arrow.schema(columns)


class Film(PartWriter):
    """A film of the images with the detections, all of one size."""

    draws = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._film: FilmFile | None = None

    def open(self) -> None:
        """Makes the folder; the film begins with the first image."""
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, prediction: Prediction) -> None:
        """Writes ``drawn``."""
        drawn = prediction.drawn
        assert drawn is not None
        if self._film is None:
            content = None if prediction.source is None else prediction.source.content
            rate = content.rate if isinstance(content, Frame) else RATE
            self._film = FilmFile(self.part, rate, (drawn.shape[0], drawn.shape[1]))
        self._film.add(drawn)

    def close(self, complete: bool) -> None:
        """As of ``PartWriter``. Raises SdkError where there was no image."""
        if self._film is not None:
            self._film.close()
        elif complete:
            raise SdkError(f"{self.path}: there was no image to make a film of")
        super().close(complete)


YOLO = "yolo:"
FILES: dict[str, type[Writer]] = {".json": CocoResults, ".jsonl": JsonLines, ".csv": Csv, ".parquet": Parquet}
FILES |= dict.fromkeys(CODECS, Film)
_EXPECTED = "a file that ends in .json (COCO results), .jsonl, .csv, .parquet or .mp4, or yolo:FOLDER"


def path_of(out: str | os.PathLike) -> Path:
    """Where ``out`` lies on the disk."""
    return Path(os.fspath(out).removeprefix(YOLO))


def part_of(path: Path) -> Path:
    """What ``path`` is called until it is whole."""
    # Of a film the ending says the format.
    return path.with_name(f"{path.stem}.part{path.suffix}" if is_film(path) else f"{path.name}.part")


def remove(path: Path) -> None:
    """Removes a file or folder, where it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def writer_for(out: str | os.PathLike) -> Writer:
    """What writes to ``out``: a file by its ending, ``yolo:folder``, else a folder of pictures.

    Raises:
        SdkError: when it is there already.
        ImportError: when a package for it is missing.
    """
    return kind_of(out)(path_of(out))


def kind_of(out: str | os.PathLike) -> type[Writer]:
    """The kind of what writes to ``out``."""
    return Yolo if os.fspath(out).startswith(YOLO) else FILES.get(path_of(out).suffix.lower(), Pictures)


def _path_of(image_id: Any) -> str:
    """A path below a folder that leads nowhere else."""
    return "/".join(
        "".join("_" if c in "\\:\0" else c for c in part) if part.strip(".") else "_"
        for part in str(image_id).split("/")
    )


def _write_new(path: Path, text: str) -> None:
    with named_errors(path), open(path, "x", encoding="utf-8") as file:
        file.write(text)
