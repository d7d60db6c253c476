"""Regions of interest of a batch, and those that a second stage is trained on.

Shape letters: R regions of all images, S sampled regions of one image, Q positive ones among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..assigners.base import Assignment
from ..samplers import Sampler
from ..structures import Targets

Assign = Callable[[Tensor, Tensor, Tensor | None], Assignment]


def image_rois(boxes: Tensor, image: int) -> Tensor:
    """(N, 4) boxes of one image to (N, 5): image number, x1, y1, x2, y2."""
    return torch.cat((boxes.new_full((len(boxes), 1), image), boxes), dim=1)


def to_rois(boxes: Sequence[Tensor]) -> Tensor:
    """(N, 4) boxes of each image, or (B, N, 4) of an OpenBatch, to (R, 5): image number, x1, y1, x2, y2."""
    if boxes[0].ndim == 3:
        number = torch.arange(boxes[0].shape[0], dtype=boxes[0].dtype, device=boxes[0].device)
        return torch.cat((number[:, None, None].expand(-1, boxes[0].shape[1], 1), boxes[0]), dim=2).flatten(0, 1)
    return torch.cat([image_rois(own, image) for image, own in enumerate(boxes)])


@dataclass(frozen=True)
class SampledRegions:
    """The regions of one image that a second stage is trained on: positives first, then negatives.

    boxes: (S, 4). matched: (Q,) index of each positive's ground truth. matched_boxes: (Q, 4). labels: (Q,).
    is_ground_truth: (S,) the region is a ground truth that was added to the proposals. overlaps: (S,) overlap with
    the best ground truth. index: (S,) where the region stood among ground truths and proposals.
    """

    boxes: Tensor
    matched: Tensor
    matched_boxes: Tensor
    labels: Tensor
    is_ground_truth: Tensor
    overlaps: Tensor
    index: Tensor

    @property
    def positive_boxes(self) -> Tensor:
        """(Q, 4) boxes of the positives."""
        return self.boxes[: len(self.matched)]


def sample_regions(proposals: Tensor, target: Targets, assign: Assign, sampler: Sampler) -> SampledRegions:
    """Assign (P, 4) proposals of one image to its objects and choose those that are trained on."""
    candidates = assign_regions(proposals, target, assign, getattr(sampler, "add_ground_truth", False))
    return candidates.take(*sampler(candidates.assignment), target)


@dataclass(frozen=True)
class Candidates:
    """What the regions of one image are chosen from: (P, 4) boxes, the first ``added`` of which are ground truths, and
    their assignment."""

    boxes: Tensor
    assignment: Assignment
    added: int

    def take(self, positive: Tensor, negative: Tensor, target: Targets) -> SampledRegions:
        """The regions at these (Q,) and (S - Q,) indices."""
        index = torch.cat((positive, negative))
        matched = self.assignment.matched[positive]
        return SampledRegions(
            boxes=self.boxes[index],
            matched=matched,
            matched_boxes=target.boxes[matched],
            labels=target.labels[matched],
            is_ground_truth=index < self.added,
            overlaps=self.assignment.overlaps[index],
            index=index,
        )


def assign_regions(proposals: Tensor, target: Targets, assign: Assign, add_ground_truth: bool) -> Candidates:
    """(P, 4) proposals of one image with the objects that they are responsible for; the objects' own boxes come first
    where ``add_ground_truth``."""
    assignment = assign(proposals, target.boxes, target.ignore_boxes)
    if not add_ground_truth:
        return Candidates(proposals, assignment, 0)
    boxes = torch.cat((target.boxes.to(proposals.dtype), proposals))
    return Candidates(boxes, assignment.with_ground_truth(len(target)), len(target))


def sample_batch(
    proposals: Sequence[Tensor], targets: Sequence[Targets], assign: Assign, sampler: Sampler
) -> list[SampledRegions]:
    """The regions that a second stage is trained on, image by image."""
    return [sample_regions(p, t, assign, sampler) for p, t in zip(proposals, targets, strict=True)]
