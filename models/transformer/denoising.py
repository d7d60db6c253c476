"""Queries made from objects with noise, which training has to repair (Zhang et al., "DINO", section 3.3, after Li et
al., "DN-DETR").

Shape letters: B images, T noisy queries, Q other queries, N objects of an image, M the most objects of any image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..assigners.base import BACKGROUND
from ..boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ..structures import Targets
from .references import inverse_sigmoid


@dataclass(frozen=True)
class NoisyObjects:
    """Noisy objects of a batch, in groups that hold each object of an image twice: once to be repaired, once so far off
    that it is to be told as no object.

    labels: (B, T) int64, the class count at padding. boxes: (B, T, 4) as centre and size in 0..1. objects: (B, T) index
    of the object that a query is to become, or ``BACKGROUND``. groups: how many.
    """

    labels: Tensor
    boxes: Tensor
    objects: Tensor
    groups: int

    def hidden(self, queries: int) -> Tensor:
        """(T + Q, T + Q) bool, true where a query (row) may not see another (column): no group sees another, and the
        ``queries`` others see none, for noisy objects tell where the objects are."""
        noisy = self.labels.shape[1]
        group = torch.arange(noisy + queries, device=self.labels.device) // (noisy // self.groups)
        group = group.clamp(max=self.groups)
        return (group[:, None] != group) & (group < self.groups)


@dataclass(frozen=True)
class Denoising:
    """How objects are made noisy.

    queries: about so many noisy queries, half of them to be repaired (a group at least). label_noise: twice the
    probability of another class. box_noise: the largest shift of a side, as a share of half the box; sides of those
    that are to be told as no object move by one to two times as much.
    """

    queries: int = 100
    label_noise: float = 0.5
    box_noise: float = 1.0

    def __call__(self, targets: Sequence[Targets], sizes: Tensor, num_classes: int) -> NoisyObjects | None:
        """None where no image has an object. sizes: (B, 4) pixels that are 1 in width, height, width, height."""
        counts = [len(target) for target in targets]
        most = max(counts, default=0)
        if most == 0:
            return None
        groups = max(self.queries // most, 1)
        batch, device = len(targets), targets[0].labels.device
        labels = torch.full((batch, most), num_classes, device=device)
        boxes = targets[0].boxes.new_zeros(batch, most, 4)
        objects = torch.full((batch, most), BACKGROUND, device=device)
        for index, (target, count) in enumerate(zip(targets, counts)):
            labels[index, :count] = target.labels
            boxes[index, :count] = xyxy_to_cxcywh(target.boxes / sizes[index].to(target.boxes.dtype))
            objects[index, :count] = torch.arange(count, device=device)
        real = (objects != BACKGROUND).repeat(1, 2 * groups)
        objects = torch.cat((objects, torch.full_like(objects, BACKGROUND)), dim=1).repeat(1, groups)
        labels, boxes = labels.repeat(1, 2 * groups), boxes.repeat(1, 2 * groups, 1)
        far = (torch.arange(labels.shape[1], device=device) // most % 2 == 1)[:, None]
        labels = self.other_labels(labels, real, num_classes)
        return NoisyObjects(labels, self.moved(boxes, far), objects, groups)

    def other_labels(self, labels: Tensor, real: Tensor, num_classes: int) -> Tensor:
        """(B, T) labels, of which some real ones are drawn anew."""
        chosen = torch.rand(labels.shape, dtype=torch.float32, device=labels.device) < self.label_noise * 0.5
        drawn = torch.randint(num_classes, labels.shape, device=labels.device)
        return torch.where(chosen & real, drawn, labels)

    def moved(self, boxes: Tensor, far: Tensor) -> Tensor:
        """(B, T, 4) boxes as centre and size with every side moved; (T, 1) ``far`` says which move farther."""
        sign = torch.randint(2, boxes.shape, device=boxes.device) * 2 - 1
        share = (torch.rand(boxes.shape, dtype=boxes.dtype, device=boxes.device) + far) * sign
        half = boxes[..., 2:].repeat(1, 1, 2) * 0.5
        return xyxy_to_cxcywh((cxcywh_to_xyxy(boxes) + share * half * self.box_noise).clamp(0, 1))


class NoisyQueries(nn.Module):
    """Puts noisy objects in front of a decoder's queries; their content is learnt, one for each class."""

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.classes = nn.Embedding(num_classes + 1, channels, padding_idx=num_classes)

    def forward(
        self, query: Tensor, reference: Tensor, noisy: NoisyObjects | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """(B, Q, C) queries and their (B, Q, 4) boxes to the same of (B, T + Q), and what is hidden from whom."""
        if noisy is None:
            # Distributed training waits for a gradient of every parameter.
            return query + 0 * self.classes.weight.sum() if self.training else query, reference, None
        boxes = inverse_sigmoid(noisy.boxes).sigmoid().to(reference.dtype)
        hidden = noisy.hidden(query.shape[1])
        return torch.cat((self.classes(noisy.labels), query), dim=1), torch.cat((boxes, reference), dim=1), hidden
