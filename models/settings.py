"""Test-time settings: plain objects that may be changed after a detector is built."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

S = TypeVar("S")


@dataclass
class SoftNMS:
    """Lower the scores of overlapping boxes instead of dropping them (Bodla et al., "Soft-NMS").

    method: ``linear`` or ``gaussian``; sigma: width of the Gaussian; min_score: below it a box is dropped.
    """

    method: str = "linear"
    sigma: float = 0.5
    min_score: float = 1e-3


@dataclass
class DenseTest:
    """Settings of a dense head.

    score_threshold: pairs of location and class above it are candidates, at most ``candidates_per_level`` of each
    level. nms_threshold: IoU above which the lower score of a class is suppressed.
    """

    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_per_image: int = 100
    candidates_per_level: int = 1000
    soft_nms: SoftNMS | None = None


@dataclass
class RoITest:
    """Settings of a second stage; mask_threshold: probability from which on a pixel belongs to a mask."""

    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_per_image: int = 100
    mask_threshold: float = 0.5
    soft_nms: SoftNMS | None = None


@dataclass
class ProposalSettings:
    """How a first stage makes proposals: at most ``candidates_per_level`` before and ``max_per_image`` after NMS."""

    candidates_per_level: int = 1000
    max_per_image: int = 1000
    nms_threshold: float = 0.7
    min_size: float = 0.0


@dataclass
class SetTest:
    """Settings of a detector that predicts a set: its best ``max_per_image`` whose score is above the threshold."""

    score_threshold: float = 0.0
    max_per_image: int = 100


@dataclass
class CornerTest:
    """Settings of a detector that pairs corners.

    corner_topk: corners of each kind that are paired. local_maximum_kernel: a corner has the best score among so many
    places in each direction. distance_threshold: the most by which the embeddings, or the centres, of a pair differ.
    score_threshold: pairs above it are kept; nms_threshold and soft_nms: how overlapping boxes are suppressed.
    """

    corner_topk: int = 100
    local_maximum_kernel: int = 3
    distance_threshold: float = 0.5
    score_threshold: float = 0.0
    nms_threshold: float = 0.5
    max_per_image: int = 100
    soft_nms: SoftNMS | None = field(default_factory=lambda: SoftNMS(method="gaussian"))


def without_suppression(test: S) -> S:
    """The settings by which every candidate stays, with the score and the box that it has by itself."""
    off: dict[str, Any] = {
        # No overlap is above it.
        "nms_threshold": 2.0,
        "max_per_image": sys.maxsize,
        "soft_nms": None,
        "score_voting": False,
    }
    return replace(test, **{f.name: off[f.name] for f in fields(test) if f.name in off})  # type: ignore[type-var, arg-type]
