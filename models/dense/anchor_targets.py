"""What anchors should predict, and the losses of doing so.

Shape letters: B images, P anchors of all levels, K classes, N objects of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..assigners.base import BACKGROUND, Assignment
from ..coders import BoxCoder
from ..losses import BoxLoss
from ..priors import AnchorGrid
from ..samplers import Sampler
from ..structures import ImageBatch, Targets

Assign = Callable[[Tensor, Tensor, Tensor | None], Assignment]


@dataclass(frozen=True)
class AnchorTargets:
    """Targets of all anchors of a batch.

    labels: (B, P) int64 in 0..K, K for background. label_weights: (B, P), zero where an anchor does not count.
    codes: (B, P, 4) regression targets, or boxes where the box loss compares boxes. positive: (B, P) bool.
    matched: (B, P) int64, which object of its image a positive anchor is responsible for. positives and negatives: how
    many were chosen, at least one counted for every image.
    """

    labels: Tensor
    label_weights: Tensor
    codes: Tensor
    positive: Tensor
    matched: Tensor
    positives: int
    negatives: int


def inside_image(anchors: Tensor, size: tuple[int, int], border: float) -> Tensor:
    """(P,) bool: the anchor lies inside an image of (h, w), up to ``border`` pixels; all where that is negative."""
    if border < 0:
        return anchors.new_ones(len(anchors), dtype=torch.bool)
    height, width = size
    low = (anchors[:, :2] >= -border).all(dim=1)
    return low & (anchors[:, 2] < width + border) & (anchors[:, 3] < height + border)


def image_targets(
    anchors: Tensor,
    usable: Tensor,
    target: Targets,
    *,
    num_classes: int,
    assign: Assign,
    sampler: Sampler,
    encode: Callable[[Tensor, Tensor], Tensor],
) -> AnchorTargets:
    """The targets of one image (without the leading B); anchors that are not ``usable`` take no part."""
    device, count = anchors.device, len(anchors)
    labels = torch.full((count,), num_classes, dtype=torch.int64, device=device)
    label_weights = anchors.new_zeros(count)
    codes = anchors.new_zeros(count, 4)
    positive = torch.zeros(count, dtype=torch.bool, device=device)
    index = usable.nonzero()[:, 0]
    assignment = assign(anchors[index], target.boxes, target.ignore_boxes)
    pos, neg = sampler(assignment)
    matched = assignment.matched[pos]
    where = index[pos]
    labels[where] = target.labels[matched]
    codes[where] = encode(anchors[where], target.boxes[matched])
    positive[where] = True
    owners = torch.full_like(labels, BACKGROUND)
    owners[where] = matched
    label_weights[where] = 1
    label_weights[index[neg]] = 1
    return AnchorTargets(labels, label_weights, codes, positive, owners, max(len(pos), 1), max(len(neg), 1))


def matched_objects(assignment: Assignment, target: Targets, num_classes: int) -> tuple[Tensor, Tensor]:
    """The object of each prior of one image: (P,) labels, ``num_classes`` where it has none, and (P, 4) boxes."""
    positive = assignment.positive
    labels = torch.full_like(assignment.matched, num_classes)
    labels[positive] = target.labels[assignment.matched[positive]]
    boxes = target.boxes.new_zeros(len(labels), 4)
    boxes[positive] = target.boxes[assignment.matched[positive]]
    return labels, boxes


def batch_objects(
    assignments: Sequence[Assignment], targets: Sequence[Targets], num_classes: int
) -> tuple[Tensor, Tensor]:
    """``matched_objects`` of a batch: (B, P) labels and (B, P, 4) boxes."""
    each = [matched_objects(one, target, num_classes) for one, target in zip(assignments, targets, strict=True)]
    return torch.stack([labels for labels, _ in each]), torch.stack([boxes for _, boxes in each])


def anchor_targets(
    grid: AnchorGrid,
    sizes: Sequence[tuple[int, int]],
    images: ImageBatch,
    targets: Sequence[Targets],
    *,
    num_classes: int,
    assign: Assign,
    sampler: Sampler,
    coder: BoxCoder,
    box_loss: BoxLoss,
    border: float = -1,
) -> tuple[Tensor, AnchorTargets]:
    """(P, 4) anchors of all levels and the targets of a batch.

    border: anchors that reach further than this outside the image are not trained on (all are, where negative).
    """
    device = images.pixels.device
    anchors = torch.cat(grid(sizes, device))
    valid = torch.cat(grid.valid(sizes, images.padded_size, device))
    usable = torch.stack([valid & inside_image(anchors, size, border) for size in images.sizes])
    return anchors, batch_targets(
        anchors.expand(len(targets), -1, -1),
        usable,
        targets,
        num_classes=num_classes,
        assign=assign,
        sampler=sampler,
        coder=coder,
        box_loss=box_loss,
    )


def batch_targets(
    anchors: Tensor,
    usable: Tensor,
    targets: Sequence[Targets],
    *,
    num_classes: int,
    assign: Assign,
    sampler: Sampler,
    coder: BoxCoder,
    box_loss: BoxLoss,
) -> AnchorTargets:
    """The targets of a batch whose images may have anchors of their own: (B, P, 4), of which the (B, P) bool usable
    ones take part."""
    encode = (lambda priors, boxes: boxes) if box_loss.on_boxes else coder.encode
    each = [
        image_targets(own, mask, target, num_classes=num_classes, assign=assign, sampler=sampler, encode=encode)
        for own, mask, target in zip(anchors, usable, targets, strict=True)
    ]
    return AnchorTargets(
        labels=torch.stack([t.labels for t in each]),
        label_weights=torch.stack([t.label_weights for t in each]),
        codes=torch.stack([t.codes for t in each]),
        positive=torch.stack([t.positive for t in each]),
        matched=torch.stack([t.matched for t in each]),
        positives=sum(t.positives for t in each),
        negatives=sum(t.negatives for t in each),
    )


class AnchorHead(Protocol):
    """A head that assigns anchors: what they are, and by which rules they are trained."""

    @property
    def num_classes(self) -> int: ...

    @property
    def anchors(self) -> AnchorGrid: ...

    @property
    def assigner(self) -> Assign: ...

    @property
    def sampler(self) -> Sampler: ...

    @property
    def coder(self) -> BoxCoder: ...

    @property
    def loss_bbox(self) -> BoxLoss: ...


def head_targets(
    head: AnchorHead, sizes: Sequence[tuple[int, int]], images: ImageBatch, targets: Sequence[Targets]
) -> tuple[Tensor, AnchorTargets]:
    """``anchor_targets`` by the rules of a head: (P, 4) anchors on levels of (H, W), and what they should predict."""
    return anchor_targets(
        head.anchors,
        sizes,
        images,
        targets,
        num_classes=head.num_classes,
        assign=head.assigner,
        sampler=head.sampler,
        coder=head.coder,
        box_loss=head.loss_bbox,
    )


def anchor_losses(
    logits: Tensor,
    codes: Tensor,
    anchors: Tensor,
    targets: AnchorTargets,
    *,
    class_loss: Callable[..., Tensor],
    box_loss: BoxLoss,
    coder: BoxCoder,
    normalizer: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """Classification and regression loss of (B, P, C) logits and (B, P, 4) codes; boxes count at positives only.

    anchors: (P, 4), or (B, P, 4) where images have anchors of their own.
    """
    loss_cls = class_loss(logits.flatten(0, 1), targets.labels.flatten(), targets.label_weights.flatten(), normalizer)
    pred, wanted = codes[targets.positive], targets.codes[targets.positive]
    if box_loss.on_boxes:
        priors = anchors.expand(len(codes), -1, -1)[targets.positive]
        pred = coder.decode(priors, pred)
    loss_bbox = box_loss(pred, wanted, None, normalizer)
    return loss_cls, loss_bbox if len(pred) else codes.sum() * 0
