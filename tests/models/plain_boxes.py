"""Boxes as four Python numbers, for tests that count one by one.

Shape letters: N boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Box = Sequence[float]


def area(box: Box) -> float:
    """Width times height; zero where a side is turned inside out."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def intersection(a: Box, b: Box) -> float:
    """The area that two boxes share."""
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def iou(a: Box, b: Box) -> float:
    """Intersection over union."""
    shared = intersection(a, b)
    return shared / (area(a) + area(b) - shared)


def giou(a: Box, b: Box) -> float:
    """IoU less the share of the enclosing box that neither covers."""
    hull = area((min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])))
    union = area(a) + area(b) - intersection(a, b)
    return iou(a, b) - (hull - union) / hull


def centre_and_size(box: Box) -> tuple[float, float, float, float]:
    """Centre x and y, width and height."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]


def random_boxes(count: int, *, seed: int, extent: float = 100.0, least: float = 4.0, most: float = 50.0) -> Tensor:
    """(N, 4) boxes with upper left corners in 0..extent and sides in least..most."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * extent
    return torch.cat((low, low + least + torch.rand(count, 2, generator=generator) * (most - least)), dim=1)
