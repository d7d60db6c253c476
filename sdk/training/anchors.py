"""Whether a detector's anchors fit the objects of a dataset, and shapes that would.

Shape letters: N objects, A anchors of all levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.vq import kmeans2
from torch import nn

from ..datasets.base import DetectionDataset
from ..datasets.index import columns_of
from ..datasets.transforms import Preprocessing
from ..models.assigners import MaxIoUAssigner
from ..models.priors import AnchorGrid, replace_anchors
from ..reports.progress import say

MOST_OBJECTS = 20_000
"""Objects that are looked at, spread evenly over all."""


@dataclass(frozen=True)
class AnchorFit:
    """How well the anchors of one head fit the objects, by shapes alone: wherever an anchor lies, its IoU is no larger.

    name: of the head. iou: from which its anchors are positive. objects: how many were looked at. unmatched: share of
    these that no anchor can reach that IoU with; fitted: share with ``shapes``, (A, 2) widths and heights by k-means.
    """

    name: str
    iou: float
    objects: int
    unmatched: float
    shapes: np.ndarray
    fitted: float

    def __str__(self) -> str:
        shown = ", ".join(f"{width:.0f} x {height:.0f}" for width, height in self.shapes)
        return (
            f"anchors of {self.name}: {self.unmatched:.1%} of {self.objects:,} objects reach an IoU of {self.iou:g} "
            f"with none of their shapes; {self.fitted:.1%} would with {shown}"
        )


def anchor_fits(detector: nn.Module, dataset: DetectionDataset, preprocessing: Preprocessing) -> list[AnchorFit]:
    """The fit of every head that matches anchors by their IoU; none for other detectors, or without objects.

    Objects have the size that they get by the preprocessing, pixels of the network.
    """
    shapes = object_shapes(dataset, preprocessing)
    fits = []
    for name, grid, assigner in matching_heads(detector):
        own = np.concatenate([(base[:, 2:] - base[:, :2]).numpy() for base in grid.bases])
        if len(shapes) < len(own):
            continue
        better = clustered(shapes, len(own))
        iou = assigner.positive
        unmatched, fitted = (float((shape_iou(shapes, each).max(1) < iou).mean()) for each in (own, better))
        fits.append(AnchorFit(name, iou, len(shapes), unmatched, better, fitted))
    return fits


def fit_anchors(detector: nn.Module, dataset: DetectionDataset, preprocessing: Preprocessing) -> list[AnchorFit]:
    """Gives every such head the shapes that fit, the smallest at the smallest stride; what they were like before.

    Raises ValueError where the detector has no such head, or the dataset too few objects.
    """
    fits = anchor_fits(detector, dataset, preprocessing)
    if not fits:
        raise ValueError(
            "anchors: auto needs a detector that matches anchors by their IoU, and more objects than anchors"
        )
    grids = {name: grid for name, grid, _ in matching_heads(detector)}
    replace_anchors(detector, {fit.name: _over_levels(grids[fit.name], fit.shapes) for fit in fits})
    return fits


WORTH_SAYING = 0.05
"""Share of objects without an anchor from which on it is said although nobody asked."""


def tell_anchors(fits: Sequence[AnchorFit], anchors: str | None) -> None:
    """Says which shapes were taken, or that others would fit more objects."""
    for fit in fits:
        if anchors == "auto":
            say(f"{fit}, which are taken")
        elif fit.unmatched >= WORTH_SAYING and fit.fitted < fit.unmatched:
            say(f"{fit} (anchors='auto' takes these)")


def matching_heads(detector: nn.Module) -> list[tuple[str, AnchorGrid, MaxIoUAssigner]]:
    """Name, anchors and assigner of each head that matches anchors by their IoU."""
    heads = ((n, getattr(m, "anchors", None), getattr(m, "assigner", None)) for n, m in detector.named_modules())
    return [(n, a, m) for n, a, m in heads if isinstance(a, AnchorGrid) and isinstance(m, MaxIoUAssigner)]


def object_shapes(dataset: DetectionDataset, preprocessing: Preprocessing) -> np.ndarray:
    """(N, 2) widths and heights of the objects that count, in pixels of the network."""
    columns = columns_of(dataset)
    rows = np.flatnonzero(~columns.ignore)
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_OBJECTS)).astype(int)] if len(rows) else rows
    shapes = (columns.boxes[:, 2:] - columns.boxes[:, :2])[rows]
    images, places = np.unique(columns.image_of()[rows], return_inverse=True)
    factors = np.ones((len(images), 2))
    for factor, image in zip(factors, images.tolist()):
        height, width = dataset.info(image).size
        new_height, new_width = preprocessing.resized_size((height, width))
        factor[:] = new_width / width, new_height / height
    shapes = shapes * factors[places]
    return shapes[(shapes > 0).all(axis=1)]


def shape_iou(shapes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """(N, A) IoU of boxes of (N, 2) and (A, 2) widths and heights with one centre."""
    common = np.minimum(shapes[:, None], anchors[None]).prod(axis=2)
    return common / (shapes.prod(axis=1)[:, None] + anchors.prod(axis=1)[None] - common)


def clustered(shapes: np.ndarray, count: int) -> np.ndarray:
    """(A, 2) centres of the shapes by k-means over the logarithms, smallest area first."""
    centers, _ = kmeans2(np.log(shapes), count, minit="++", rng=np.random.default_rng(0), missing="warn")
    found = np.exp(centers)
    return found[np.argsort(found.prod(axis=1))]


def _over_levels(grid: AnchorGrid, shapes: np.ndarray) -> list[list[list[float]]]:
    """Base anchors of each level in the order of the grid: as many as before, around the same centres."""
    order = sorted(range(len(grid.strides)), key=lambda level: np.max(grid.strides[level]))
    bases: dict[int, list[list[float]]] = {}
    taken = 0
    for level in order:
        base = grid.bases[level].numpy()
        own = shapes[taken : taken + len(base)]
        taken += len(base)
        center = (base[:, :2] + base[:, 2:]) / 2
        bases[level] = np.concatenate([center - own / 2, center + own / 2], axis=1).astype(np.float32).tolist()
    return [bases[level] for level in range(len(grid.strides))]
