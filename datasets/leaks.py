"""Images that are the same picture: within a dataset, and, worse, in what is learnt from and in what is scored.

Shape letters: I images of all splits, Q queries, N indexed hashes, S side of a thumbnail.

Three steps, each on few of what the one before left. Equal files are found by size, ends and SHA-256. Candidates for
near duplicates share a perceptual hash (``imagehash``, BSD): that of the whole picture or its mirror image against
those of the windows that a crop of up to 10 % leaves. Candidates are aligned and compared pixel by pixel.

No step compares all with all, and pictures are read one at a time: only hashes are held in memory, thumbnails lie in
a temporary file.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from .base import DetectionDataset
from .errors import DatasetError, Fault

Kind = Literal["equal file", "near duplicate"]
READERS = 8
# Side of the square thumbnails on which candidates are compared, in pixels.
SIDE = 64
# Bits of 64 in which hashes of candidates may differ. Up to 7 all are found, of those with more most.
RADIUS = 10
# Correlation of the details of aligned thumbnails from which two pictures are the same.
SAME = 0.9
# Correlation at 16 x 16 pixels below which candidates are not aligned at all.
ROUGHLY_SAME = 0.7
# Standard deviation of grey values below which a picture shows nothing that could be recognized.
PLAIN = 3.0
# What a crop leaves of each side, as (start, end); twice 5 % and once 10 % stand for all that lies between.
_SPANS = ((0.0, 1.0), (0.05, 1.0), (0.1, 1.0), (0.0, 0.95), (0.0, 0.9), (0.05, 0.95))
_BITS = np.array([value.bit_count() for value in range(1 << 16)], np.uint8)


@dataclass(frozen=True)
class Place:
    """An image: its split, its index there, its id, and its file where it has one."""

    split: str
    index: int
    image_id: Any
    path: str | None

    def __str__(self) -> str:
        return self.path or f"{self.split}, image {self.image_id}"


@dataclass(frozen=True)
class Pair:
    """Two images that are the same picture.

    kind: ``equal file`` byte for byte, or ``near duplicate``. similarity: correlation of the details of the aligned
    grey pictures, 1 for equal files. mirrored: the second is the mirror image. same_labels: the same classes are
    annotated equally often on both.
    """

    first: Place
    second: Place
    kind: Kind
    similarity: float = 1.0
    mirrored: bool = False
    same_labels: bool = True

    @property
    def between_splits(self) -> bool:
        """Whether the two lie in different splits."""
        return self.first.split != self.second.split

    def fault(self) -> Fault:
        """The pair as a fault of a dataset."""
        what = "image" if self.kind == "equal file" else "near duplicate"
        kind = f"{what} in more than one split" if self.between_splits else f"{what} more than once"
        if not self.same_labels:
            kind += ", with other labels"
        note = ", mirrored" if self.mirrored else ""
        found = f"{self.second.split}: {self.second} (similarity {self.similarity:.3f}{note})"
        return Fault(kind, str(self.first), f"split {self.first.split}", found=found, level="warning")


def equal_files(splits: Mapping[str, DetectionDataset], *, within: bool = False) -> list[Pair]:
    """Images whose files are equal byte for byte, in different splits, or ``within`` one as well.

    Only files of one size are opened, and only those with equal ends are read whole. Images without a file are left
    out. An image is paired with the first that equals it.
    """
    by_size: dict[Any, list[Place]] = defaultdict(list)
    for place in _places(splits):
        try:
            by_size[Path(place.path).stat().st_size if place.path else None].append(place)
        except OSError:
            continue  # A missing file is told when it is read.
    by_size.pop(None, None)

    def grouped(groups: Iterable[list[Place]], key: Any) -> list[list[Place]]:
        alike = [group for group in groups if _may_pair(group, within)]
        found: dict[Any, list[Place]] = defaultdict(list)
        with ThreadPoolExecutor(READERS) as readers:
            flat = [(number, place) for number, group in enumerate(alike) for place in group]
            for (number, place), value in zip(flat, readers.map(lambda entry: key(Path(entry[1].path)), flat)):
                found[number, value].append(place)
        return list(found.values())

    groups = grouped(grouped(by_size.values(), _ends), _content)
    pairs = []
    for first, *others in (group for group in groups if _may_pair(group, within)):
        for other in others:
            # Two names of one file are one image only where an annotation list names it twice.
            if within or other.split != first.split:
                pairs.append(Pair(first, other, "equal file", same_labels=_same_labels(splits, first, other)))
    return pairs


def find_leaks(splits: Mapping[str, DetectionDataset]) -> list[Pair]:
    """All pairs of images that are the same picture, within splits and between them, by split, then index.

    Near duplicates are pictures that were encoded again, resized, cropped by up to 10 % of a side, mirrored or made
    brighter or darker, and frames of a video between which hardly anything moved. Pictures that show next to nothing
    (grey values with a standard deviation below 3) are only compared as files.

    Raises:
        ImportError: when ``imagehash`` is missing (``pip install 'detection-sdk[leaks]'``).
    """
    if find_spec("imagehash") is None:
        raise ImportError("near duplicates are looked for with imagehash: pip install 'detection-sdk[leaks]'")
    exact = equal_files(splits, within=True)
    doubled = {(pair.second.split, pair.second.index) for pair in exact}
    places = [place for place in _places(splits) if (place.split, place.index) not in doubled]
    with tempfile.TemporaryDirectory(prefix="sdk-leaks-") as folder:
        shape = (max(len(places), 1), SIDE, SIDE)
        thumbnails = np.memmap(Path(folder) / "thumbnails", np.uint8, "w+", shape=shape)
        hashes = _hashed(splits, places, thumbnails)
        near = list(_confirmed(splits, places, thumbnails, hashes))
        del thumbnails  # Some systems do not remove a file that is mapped.
    order = {name: number for number, name in enumerate(splits)}
    return sorted([*exact, *near], key=lambda pair: (order[pair.first.split], pair.first.index, pair.second.index))


def duplicate_groups(dataset: DetectionDataset) -> np.ndarray:
    """(I,) int64, a number that images share which are the same picture, by chains of ``find_leaks`` pairs."""
    groups = np.arange(len(dataset))

    def top(index: int) -> int:
        while groups[index] != index:
            index = int(groups[index])
        return index

    for pair in find_leaks({"all": dataset}):
        one, other = sorted((top(pair.first.index), top(pair.second.index)))
        groups[other] = one
    return np.array([top(index) for index in range(len(dataset))], np.int64)


def repeated_boxes(dataset: DetectionDataset, split: str) -> Iterator[Fault]:
    """Boxes that stand twice on one image under different classes; decodes nothing where there are columns."""
    columns = getattr(dataset, "annotations", None)
    if columns is None:
        return
    for index in range(len(dataset)):
        rows = columns.rows(index)
        seen: dict[tuple[float, ...], int] = {}
        boxes = columns.boxes[rows].tolist()
        for box, label, ignored in zip(boxes, columns.labels[rows].tolist(), columns.ignore[rows].tolist()):
            other = seen.setdefault(tuple(box), label)
            if other != label and not ignored:
                names = f"{dataset.classes[other]!r} and {dataset.classes[label]!r}"
                info = dataset.info(index)
                where = f"split {split}, image {info.image_id}"
                yield Fault("equal boxes of two classes", info.path, where, "bbox", f"{names}: {box}", level="warning")


def _places(splits: Mapping[str, DetectionDataset]) -> Iterator[Place]:
    for name, dataset in splits.items():
        for index in range(len(dataset)):
            info = dataset.info(index)
            yield Place(name, index, info.image_id, info.path)


def _may_pair(places: Sequence[Place], within: bool) -> bool:
    return len(places) > 1 and (within or len({place.split for place in places}) > 1)


def _ends(path: Path) -> bytes:
    """The first and last 4 KiB, of which pictures of one size differ nearly always."""
    with open(path, "rb") as stream:
        head = stream.read(4096)
        stream.seek(max(0, path.stat().st_size - 4096))
        return head + stream.read(4096)


def _content(path: Path) -> bytes:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _same_labels(splits: Mapping[str, DetectionDataset], first: Place, second: Place) -> bool:
    def named(place: Place) -> Counter[str]:
        dataset = splits[place.split]
        return Counter(str(dataset.classes[label]) for label in dataset.info(place.index).labels)

    return named(first) == named(second)


def _grey(dataset: DetectionDataset, place: Place) -> np.ndarray | None:
    """(S, S) uint8 grey thumbnail of the whole picture; none where it cannot be read."""
    if place.path is not None:
        image = cv2.imdecode(np.fromfile(place.path, np.uint8), cv2.IMREAD_GRAYSCALE) if _has(place.path) else None
    else:
        try:
            image = cv2.cvtColor(np.ascontiguousarray(dataset[place.index].image), cv2.COLOR_RGB2GRAY)
        except DatasetError:
            image = None
    return None if image is None else cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _has(path: str) -> bool:
    return Path(path).is_file() and Path(path).stat().st_size > 0


def _hashed(
    splits: Mapping[str, DetectionDataset], places: Sequence[Place], thumbnails: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fills the thumbnails; gives the indices of the pictures that show something, (I',), the hashes of each and of
    its mirror image, (I', 2) uint64, and of its windows, (I', 36) uint64."""
    kept: list[int] = []
    wholes: list[list[int]] = []
    windows: list[list[int]] = []

    def read(place: Place) -> tuple[np.ndarray, list[int], list[int]] | None:
        grey = _grey(splits[place.split], place)
        if grey is None or grey.std() < PLAIN:
            return None
        return grey, [_hash(grey), _hash(grey[:, ::-1])], [_hash(_window(grey, *spans)) for spans in _WINDOWS]

    with ThreadPoolExecutor(2) as readers:
        # In portions: a pool takes all its work at once and holds what is done until it is asked for.
        for start in range(0, len(places), 256):
            for number, found in enumerate(readers.map(read, places[start : start + 256]), start):
                if found is not None:
                    thumbnails[number], whole, parts = found
                    kept.append(number)
                    wholes.append(whole)
                    windows.append(parts)
    return (
        np.array(kept, np.int64),
        np.array(wholes, np.uint64).reshape(-1, 2),
        np.array(windows, np.uint64).reshape(-1, len(_WINDOWS)),
    )


_WINDOWS = tuple(itertools.product(_SPANS, _SPANS))


def _window(grey: np.ndarray, across: tuple[float, float], down: tuple[float, float]) -> np.ndarray:
    x1, x2 = (round(SIDE * end) for end in across)
    y1, y2 = (round(SIDE * end) for end in down)
    return grey[y1:y2, x1:x2]


def _hash(grey: np.ndarray) -> int:
    import imagehash
    from PIL import Image

    bits = imagehash.phash(Image.fromarray(np.ascontiguousarray(grey))).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_hashes(queries: np.ndarray, indexed: np.ndarray, radius: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (places in queries, places in indexed) of 64-bit hashes that differ in at most ``radius`` bits.

    Multi-index hashing (Norouzi, Punjani, Fleet, CVPR 2012): hashes that differ in at most 7 bits have one of four
    16-bit parts that differs in at most one. Of those that differ in more the ones without such a part are missed. A
    pair may come more than once.
    """
    parts_q, parts_n = queries[:, None].view(np.uint16), indexed[:, None].view(np.uint16)
    for part in range(4):
        order = np.argsort(parts_n[:, part], kind="stable")
        values = parts_n[order, part]
        for flip in (0, *(1 << bit for bit in range(16))):
            wanted = parts_q[:, part] ^ np.uint16(flip)
            starts = np.searchsorted(values, wanted, "left")
            lengths = np.searchsorted(values, wanted, "right") - starts
            for few in _portions(lengths, 1 << 20):
                q = np.repeat(np.arange(few.start, few.stop), lengths[few])
                if not len(q):
                    continue
                offsets = np.arange(len(q)) - np.repeat(np.cumsum(lengths[few]) - lengths[few], lengths[few])
                n = order[np.repeat(starts[few], lengths[few]) + offsets]
                differing = _BITS[(queries[q] ^ indexed[n])[:, None].view(np.uint16)].sum(1)
                close = differing <= radius
                yield q[close], n[close]


def _portions(lengths: np.ndarray, most: int) -> Iterator[slice]:
    """Slices of rows with about ``most`` in all, so that memory stays bounded."""
    ends = np.cumsum(lengths)
    start = 0
    while start < len(lengths):
        done = 0 if start == 0 else ends[start - 1]
        stop = max(start + 1, int(np.searchsorted(ends, done + most, "right")))
        yield slice(start, stop)
        start = stop


def _confirmed(
    splits: Mapping[str, DetectionDataset],
    places: Sequence[Place],
    thumbnails: np.ndarray,
    hashes: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Iterator[Pair]:
    kept, wholes, windows = hashes
    if not len(kept):
        return
    # One number each for the pair and for the way they match, so that what comes more than once goes early.
    ways = 4 * len(_WINDOWS)
    codes = [np.zeros(0, np.int64)]
    for q, n in near_hashes(wholes.reshape(-1), windows.reshape(-1), RADIUS):
        part, whole = q // 2, n // len(_WINDOWS)
        pair = np.minimum(part, whole) * len(kept) + np.maximum(part, whole)
        way = (n % len(_WINDOWS)) * 4 + (part < whole) * 2 + q % 2
        codes.append(np.unique((pair * ways + way)[part != whole]))
        if sum(map(len, codes)) > 1 << 24:
            codes = [np.unique(np.concatenate(codes))]
    for pair, found_ways in itertools.groupby(np.unique(np.concatenate(codes)).tolist(), lambda code: code // ways):
        a, b = divmod(int(pair), len(kept))
        best = _best_of(thumbnails[kept[a]], thumbnails[kept[b]], [int(code) % ways for code in found_ways][:MOST_WAYS])
        if best is not None:
            first, second = places[kept[a]], places[kept[b]]
            yield Pair(first, second, "near duplicate", *best, _same_labels(splits, first, second))


def _best_of(first: np.ndarray, second: np.ndarray, ways: Sequence[int]) -> tuple[float, bool] | None:
    """(similarity, mirrored) of the first way in which two thumbnails are the same."""
    for way in ways:
        window, first_is_part, mirrored = way // 4, way // 2 % 2, bool(way % 2)
        part, whole = (first, second) if first_is_part else (second, first)
        similarity = aligned_similarity(part[:, ::-1] if mirrored else part, whole, _WINDOWS[window])
        if similarity >= SAME:
            return similarity, mirrored
    return None


# Candidates match by several windows; the first few suffice to align them.
MOST_WAYS = 6


def aligned_similarity(
    part: np.ndarray, whole: np.ndarray, window: tuple[tuple[float, float], tuple[float, float]]
) -> float:
    """Correlation in -1..1 of the details of a picture and of that window of another that fits it best, (S, S) uint8.

    The window that is given is where the search begins (enhanced correlation coefficient, Evangelidis and Psarakis,
    2008). Brightness and contrast do not matter, and neither does what is as wide as a sixth of the picture: skies and
    walls that only shade alike are no duplicates. Where the search leaves what a crop of up to 12 % could be, the given
    window is compared as it is.
    """
    if _rough_similarity(part, _window(whole, *window)) < ROUGHLY_SAME:
        return 0.0
    (x1, x2), (y1, y2) = window
    start = np.array([[x2 - x1, 0, x1 * SIDE], [0, y2 - y1, y1 * SIDE]], np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
    part, whole = np.ascontiguousarray(part), np.ascontiguousarray(whole)
    try:
        every = np.full_like(whole, 255)
        _, warp = cv2.findTransformECC(part, whole, start.copy(), cv2.MOTION_AFFINE, stop, every, 3)
    except cv2.error:
        warp = start  # It did not converge, as happens where there is little to hold on to.
    scales, turns, shifts = warp[[0, 1], [0, 1]], warp[[0, 1], [1, 0]], warp[:, 2] / SIDE
    fits = (scales > 0.86).all() and (scales < 1.04).all() and np.abs(turns).max() < 0.03
    inside = (shifts > -0.03).all() and (shifts + scales < 1.03).all()
    if not (fits and inside):
        warp = start
    moved = cv2.warpAffine(whole, warp, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    one, other = _details(part), _details(moved)
    return float((one * other).mean() / max(one.std() * other.std(), 1e-12))


def _rough_similarity(part: np.ndarray, window: np.ndarray) -> float:
    """Correlation of both at 16 x 16 pixels: a hundredth of the time that aligning takes."""
    small = [cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32) for grey in (part, window)]
    one, other = (grey - grey.mean() for grey in small)
    return float((one * other).mean() / max(one.std() * other.std(), 1e-12))


def _details(grey: np.ndarray) -> np.ndarray:
    """What is about 2 to 10 pixels wide, without the margin that a warp may have left empty."""
    fine = grey.astype(np.float32)
    fine = (cv2.GaussianBlur(fine, (0, 0), 1) - cv2.GaussianBlur(fine, (0, 0), 4))[4:-4, 4:-4]
    return fine - fine.mean()
