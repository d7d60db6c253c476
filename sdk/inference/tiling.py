"""Large images in overlapping tiles, and what is found in these put together.

What two tiles find in the area that they share is matched there: a box goes into one of a higher score of its class in
another tile where their intersection is more than half of the smaller of both (greedy non-maximum merging), or of their
union (suppression). What one tile finds is left as the detector gives it, so that objects which lie in a single tile
are found as they would be without tiles. (Akyon et al., "Slicing Aided Hyper Inference", 2022, which also merges within
tiles.)

Shape letters: N detections of one image of h x w pixels, T tiles.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..models.structures import Detections
from ..ops.overlaps import pairwise_iou

Rectangle = tuple[int, int, int, int]
"""x1, y1, x2, y2 in whole pixels, the last two exclusive."""


@dataclass(frozen=True)
class Tiles:
    """How an image is cut, and how what is found is put together.

    size: pixels along each side of a tile, or (height, width). overlap: share of a side, in 0..1, by which neighbours
    overlap; objects should be smaller than it. merge: ``nmm`` joins boxes and masks of one object, ``nms`` keeps those
    of the best score. threshold: overlap in 0..1 from which on two are one object: of the smaller one's area for
    ``nmm``, of the union for ``nms``. whole: look at the image as a whole too, for objects larger than tiles.
    """

    size: int | tuple[int, int] = 640
    overlap: float = 0.2
    merge: Literal["nmm", "nms"] = "nmm"
    threshold: float = 0.5
    whole: bool = False

    def __post_init__(self) -> None:
        sides = self.size if isinstance(self.size, (tuple, list)) else (self.size, self.size)
        if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in sides):
            raise ValueError(f"tiles: size: expected whole pixels, or (height, width) of these, found {self.size!r}")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"tiles: overlap: expected a share of a side, 0 <= overlap < 1, found {self.overlap!r}")
        if self.merge not in ("nmm", "nms"):
            raise ValueError(f"tiles: merge: expected nmm or nms, found {self.merge!r}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"tiles: threshold: expected a share between 0 and 1, found {self.threshold!r}")

    @classmethod
    def of(cls, given: Tiles | int | Sequence[float] | None) -> Tiles | None:
        """Tiles as they may be given: themselves, the size, or (size, overlap). Raises ValueError for anything else."""
        if given is None or isinstance(given, cls):
            return given
        if isinstance(given, int):
            return cls(given)
        if isinstance(given, (tuple, list)) and len(given) == 2:
            size, overlap = given
            return cls(int(size) if isinstance(size, float) and size.is_integer() else size, overlap)  # type: ignore[arg-type]
        raise ValueError(f"tiles: expected the size in pixels, (size, overlap) or Tiles(...), found {given!r}")

    def rectangles(self, height: int, width: int) -> list[Rectangle]:
        """The tiles of an image, row by row, all of one size; those at the right and the bottom overlap more."""
        tall, wide = self.size if isinstance(self.size, (tuple, list)) else (self.size, self.size)
        rows, columns = _starts(height, tall, self.overlap), _starts(width, wide, self.overlap)
        tiles = [(x, y, min(x + wide, width), min(y + tall, height)) for y in rows for x in columns]
        return [*tiles, (0, 0, width, height)] if self.whole and len(tiles) > 1 else tiles


def _starts(length: int, side: int, overlap: float) -> list[int]:
    """Where tiles of ``side`` pixels start on a side of the image."""
    if length <= side:
        return [0]
    step = max(1, side - int(overlap * side))
    return [*range(0, length - side, step), length - side]


def merged(found: Sequence[Detections], tiles: Sequence[Rectangle], size: tuple[int, int], how: Tiles) -> Detections:
    """What the tiles of one image find, each in its own pixels, as detections of the image.

    found: of each of the T tiles. size: (h, w) of the image.
    """
    if len(tiles) == 1:
        return found[0]
    corners = torch.tensor([[x, y] * 2 for x, y, _, _ in tiles])
    boxes = torch.cat([one.boxes + corner for one, corner in zip(found, corners)])
    scores, labels = torch.cat([one.scores for one in found]), torch.cat([one.labels for one in found])
    starts = [0, *itertools.accumulate(len(one) for one in found)]
    # Of equal scores the first one comes first, whatever the device.
    rank = scores.argsort(descending=True, stable=True).argsort()
    joins = _joins(boxes, labels, starts, tiles, how)
    into = _greedy(rank.tolist(), joins)
    keep = torch.tensor([index for index in range(len(boxes)) if index not in into], dtype=torch.int64)
    members = defaultdict(list)
    for index, keeper in into.items():
        members[keeper].append(index)
    if how.merge == "nmm":
        for keeper, others in members.items():
            group = boxes[[keeper, *others]]
            boxes[keeper] = torch.cat([group[:, :2].amin(0), group[:, 2:].amax(0)])
    keep = keep[rank[keep].argsort()]
    masks = None
    if any(one.masks is not None for one in found):
        place = torch.repeat_interleave(torch.arange(len(tiles)), torch.tensor([len(one) for one in found]))
        masks = torch.zeros(len(keep), *size, dtype=torch.bool)
        for mask, keeper in zip(masks, keep.tolist()):
            for index in [keeper, *(members[keeper] if how.merge == "nmm" else ())]:
                tile = int(place[index])
                x1, y1, x2, y2 = tiles[tile]
                own = found[tile].masks
                assert own is not None
                mask[y1:y2, x1:x2] |= own[index - starts[tile]]
    mask_scores = None
    if any(one.mask_scores is not None for one in found):
        mask_scores = torch.cat([one.scores if one.mask_scores is None else one.mask_scores for one in found])[keep]
    return Detections(boxes[keep], scores[keep], labels[keep], masks, mask_scores)


def _joins(
    boxes: Tensor, labels: Tensor, starts: Sequence[int], tiles: Sequence[Rectangle], how: Tiles
) -> dict[int, list[int]]:
    """The detections of other tiles with which each of the N detections is one object, by index."""
    joins: dict[int, list[int]] = defaultdict(list)
    for first, second in _neighbours(tiles):
        shared = _intersection(tiles[first], tiles[second])
        a, b = (
            torch.arange(starts[tile], starts[tile + 1])[_reaching(boxes[starts[tile] : starts[tile + 1]], shared)]
            for tile in (first, second)
        )
        if not len(a) or not len(b):
            continue
        same = labels[a][:, None] == labels[b][None, :]
        if how.merge == "nms":
            overlap = pairwise_iou(boxes[a], boxes[b])
        else:
            overlap = torch.maximum(pairwise_iou(boxes[a], boxes[b], "iof"), pairwise_iou(boxes[b], boxes[a], "iof").T)
        for one, other in (same & (overlap > how.threshold)).nonzero().tolist():
            joins[int(a[one])].append(int(b[other]))
            joins[int(b[other])].append(int(a[one]))
    return joins


def _neighbours(tiles: Sequence[Rectangle]) -> list[tuple[int, int]]:
    """Pairs of tiles that share pixels, in order."""
    edges = torch.tensor(tiles)
    starts = torch.maximum(edges[:, None, :2], edges[None, :, :2])
    ends = torch.minimum(edges[:, None, 2:], edges[None, :, 2:])
    pairs = (starts < ends).all(2).triu(diagonal=1).nonzero().tolist()
    return [(first, second) for first, second in pairs]


def _intersection(a: Rectangle, b: Rectangle) -> Rectangle:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def _reaching(boxes: Tensor, area: Rectangle) -> Tensor:
    """(N,) bool: boxes that lie in the area, at least in part."""
    x1, y1, x2, y2 = area
    return (boxes[:, 0] < x2) & (boxes[:, 1] < y2) & (boxes[:, 2] > x1) & (boxes[:, 3] > y1)


def _greedy(rank: Sequence[int], joins: dict[int, list[int]]) -> dict[int, int]:
    """Into which detection each one goes that does not stay: the best takes all that it is one object with, then the
    best of those that are left."""
    into: dict[int, int] = {}
    for keeper in sorted(joins, key=lambda index: rank[index]):
        if keeper in into:
            continue
        for index in joins[keeper]:
            if index not in into and rank[index] > rank[keeper]:
                into[index] = keeper
    return into
