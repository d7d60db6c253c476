"""Assignment by the regions of objects.

Shape letters: P locations of all levels, N ground truths of one image, H x W locations of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..boxes import box_sizes
from ..priors import grid_points
from .base import BACKGROUND, IGNORED, Assignment


def inside_core(boxes: Tensor, share: float, stride: int, size: tuple[int, int]) -> Tensor:
    """(N, H W) bool: which locations of a level of (H, W) lie in the middle ``share`` of each box, whose ends are
    rounded to whole locations."""
    cut = (1 - share) / 2
    ends = boxes / stride
    low = ((1 - cut) * ends[:, :2] + cut * ends[:, 2:]).round()
    high = (cut * ends[:, :2] + (1 - cut) * ends[:, 2:]).round()
    limit = boxes.new_tensor((size[1], size[0]))
    low, high = (torch.minimum(end.clamp(min=0), limit)[:, None] for end in (low, high))
    points = grid_points(size, 1, boxes.device)
    return ((points >= low) & (points <= high)).all(dim=2)


@dataclass(frozen=True)
class RegionAssigner:
    """The middle of an object is positive on the level that fits its size, the ring around it is ignored (Wang et al.,
    "Region Proposal by Guided Anchoring", section 3.2).

    strides: of the levels. scale: the size, in strides, of the objects that fit a level. core and ring: share of the
    object up to which locations are positive, and ignored. On the levels next to the object's own the ring and the
    core are ignored, too, where they would be background; where ``neighbours_win``, even if they are another object's.
    A location in the rings of several objects belongs to the last of them.
    """

    strides: tuple[int, ...]
    scale: float
    core: float = 0.2
    ring: float = 0.5
    neighbours_win: bool = False

    def __call__(self, sizes: Sequence[tuple[int, int]], boxes: Tensor) -> Assignment:
        """(H, W) of each level and (N, 4) ground truth boxes to the assignment of all P locations, level by level."""
        if len(boxes) == 0:
            count = sum(height * width for height, width in sizes)
            return Assignment(
                torch.full((count,), BACKGROUND, dtype=torch.int64, device=boxes.device), boxes.new_zeros(count)
            )
        extent = box_sizes(boxes).prod(dim=1).clamp(min=0).sqrt()
        fitting = (extent.log2() - torch.log2(extent.new_tensor(self.scale * self.strides[0])) + 0.5).floor()
        fitting = fitting.clamp(0, len(sizes) - 1)
        matched = torch.cat([self.on_level(number, size, boxes, fitting) for number, size in enumerate(sizes)])
        return Assignment(matched, (matched >= 0).to(boxes.dtype))

    def on_level(self, level: int, size: tuple[int, int], boxes: Tensor, fitting: Tensor) -> Tensor:
        """The (H W,) assignment on one level; ``fitting``: (N,) level of each object."""
        core, ring = (inside_core(boxes, share, self.strides[level], size) for share in (self.core, self.ring))
        numbers = torch.arange(1, len(boxes) + 1, dtype=torch.int32, device=boxes.device)[:, None]
        last = (ring & (fitting == level)[:, None]).mul(numbers).amax(dim=0).long()
        owner = (last - 1).clamp(min=0)
        positive = core.gather(0, owner[None])[0]
        matched = torch.where(positive, owner, IGNORED).masked_fill(last == 0, BACKGROUND)
        nearby = (ring & ((fitting - level).abs() == 1)[:, None]).any(dim=0)
        return matched.masked_fill(nearby if self.neighbours_win else nearby & (matched == BACKGROUND), IGNORED)
