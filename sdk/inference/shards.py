"""What was found in a few images as bytes, and a job's folder of these, from which a stopped job goes on.

Shape letters: S images of a shard, M detections of all of them together.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..datasets.errors import Fault
from ..datasets.masks import decode
from ..errors import SdkError
from ..evaluators.collecting import encode_masks
from ..models.structures import Detections
from ..results.files import named_errors, write_json
from ..results.weights import Trained
from .pipeline import Looked, Settings
from .sources import Place, Source

IMAGES = 32
"""Of a shard: what is lost at most, for each process, when a job is killed."""
DIGEST = hashlib.sha256().digest_size
"""Bytes at the start of a file of a shard, the checksum of all that follows."""


def packed(images: Sequence[Looked]) -> bytes:
    """What was found, without pixels: an archive of arrays, with nothing that could run code."""
    found = [one.detections for one in images if one.detections is not None]
    faults = {place: asdict(one.fault) for place, one in enumerate(images) if one.fault is not None}
    arrays: dict[str, np.ndarray] = {
        "marks": np.array([mark(one.source) for one in images], np.int64),
        "faults": np.frombuffer(json.dumps(faults).encode(), np.uint8),
        "sizes": np.array([one.size for one in images], np.int64),
        "counts": np.array([len(one) for one in found], np.int64),
    }
    for field in ("boxes", "scores", "labels", "mask_scores"):
        parts = [value for one in found if (value := getattr(one, field)) is not None]
        if parts:
            arrays[field] = torch.cat(parts).numpy()
    if any(one.masks is not None for one in found):
        # A fault in the middle of the images has no masks; all others have.
        runs = [run["counts"] for one in found if one.masks is not None for run in encode_masks(one.masks)]
        arrays["mask_ends"] = np.cumsum([len(run) for run in runs], dtype=np.int64)
        arrays["mask_runs"] = np.frombuffer(b"".join(runs), np.uint8)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def unpacked(content: bytes, sources: Sequence[Source]) -> list[Looked]:
    """The reverse of ``packed``, for the same sources."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        stored = dict(arrays)
    faults = json.loads(stored["faults"].tobytes())
    ends = np.cumsum(stored["counts"]).tolist()
    spans = iter(zip([0, *ends], ends))
    images = []
    for place, (source, size) in enumerate(zip(sources, stored["sizes"].tolist())):
        if (fault := faults.get(str(place))) is not None:
            images.append(Looked(source, fault=Fault(**fault)))
        else:
            size = (size[0], size[1])
            images.append(Looked(source, size, _detections(stored, *next(spans), size)))
    return images


def _detections(stored: Mapping[str, np.ndarray], start: int, end: int, size: tuple[int, int]) -> Detections:
    def part(name: str) -> Tensor | None:
        return torch.from_numpy(stored[name][start:end].copy()) if name in stored else None

    boxes, scores, labels = part("boxes"), part("scores"), part("labels")
    assert boxes is not None
    assert scores is not None
    assert labels is not None
    masks = None
    if "mask_ends" in stored:
        edges = [0, *stored["mask_ends"].tolist()][start : end + 1]
        runs = [stored["mask_runs"][first:last].tobytes() for first, last in itertools.pairwise(edges)]
        masks = np.zeros((len(runs), *size), np.uint8)
        for mask, run in zip(masks, runs):
            mask[:] = decode({"size": size, "counts": run})
        masks = torch.from_numpy(masks).bool()
    return Detections(boxes, scores, labels, masks, part("mask_scores"))


def mark(source: Source) -> int:
    """A number that changes when another image takes this one's place, or its file is written again."""
    content: Any = source.content
    told = [str(source.image_id), str(source.path)]
    if isinstance(content, Place):
        told.append(content.dataset.fingerprint)
    if source.path is not None:
        with suppress(OSError):
            status = source.path.stat()
            told += [str(status.st_size), str(status.st_mtime_ns)]
    if isinstance(content, Tensor):
        content = content.detach().cpu().numpy()
    to_bytes = getattr(content, "tobytes", None)
    pixels = content if isinstance(content, bytes) else to_bytes() if to_bytes is not None else b""
    return zlib.crc32(pixels, zlib.crc32("\0".join(told).encode()))


class Journal:
    """The finished shards of a job, in a folder beside what it writes, and a manifest that says which job it is.

    A shard whose file is damaged, or whose images have changed, counts as not finished.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, out.with_name(f"{out.name}.shards")

    @property
    def exists(self) -> bool:
        """Whether an earlier try left something."""
        return self.folder.is_dir()

    def open(self, about: Mapping[str, Any]) -> None:
        """Makes the folder, or goes on with that of the same job.

        about: what the detections depend on, besides the images. Raises SdkError where they are those of another job.
        """
        path = self.folder / "manifest.json"
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            with named_errors(path):
                self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, dict(about))
            return
        except ValueError:
            earlier = {}
        for name, value in about.items():
            if (before := earlier.get(name)) != value:
                raise SdkError(
                    f"{self.folder}: a job was stopped here whose {name} is {before!r}; now it is {value!r}; "
                    "go on with the same, or remove this folder to begin anew"
                )

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{number:08d}.shard"

    def read(self, number: int, sources: Sequence[Source]) -> bytes | None:
        """What was found in these images, or none where that has to be done yet."""
        try:
            file = self.path(number).read_bytes()
        except OSError:
            return None
        content = file[DIGEST:]
        if hashlib.sha256(content).digest() != file[:DIGEST]:
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            same = arrays["marks"].tolist() == [mark(source) for source in sources]
        return content if same else None

    def write(self, number: int, content: bytes) -> None:
        """Keeps a shard. Where the machine stops before it is on the disk, its checksum tells."""
        path = self.path(number)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        with named_errors(path):
            unfinished.write_bytes(hashlib.sha256(content).digest() + content)
            os.replace(unfinished, path)

    def remove(self) -> None:
        """Removes the folder; the manifest last, so that what a kill leaves of it can still be told."""
        for path in self.folder.glob("*.shard"):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def about(trained: Trained, settings: Settings) -> dict[str, Any]:
    """What detections depend on, besides the images, as plain values for a manifest."""
    digest = hashlib.sha256()
    for name, value in trained.model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    source = Path(trained.source)
    if source.is_file():
        digest.update(source.read_bytes())
    return {
        "model": trained.recipe.name,
        "weights": digest.hexdigest()[:16],
        "test settings": repr(getattr(trained.model, "test", None)),
        "preprocessing": repr(trained.recipe.preprocessing),
        "images a shard": shard_images(settings.batch_size),
        "batch size": settings.batch_size,
        "score threshold": settings.score_threshold,
        "labels": None if settings.labels is None else list(settings.labels),
        "tiles": None if settings.tiles is None else repr(settings.tiles),
        "views": None if settings.tta is None else str(settings.tta),
    }


def shard_images(batch_size: int) -> int:
    """Images of a shard: whole batches, so that they are the same as without shards."""
    return -(-IMAGES // batch_size) * batch_size
