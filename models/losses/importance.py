"""Weights of examples by their importance: Cao et al., "Prime Sample Attention in Object Detection".

Shape letters: Q positive examples of a batch, N negative examples of an image, M groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...ops.nms import nms
from ...ops.overlaps import pairwise_iou
from ..samplers import ranks_in_groups
from .reduce import EPS


def kept_sum(weights: Tensor, losses: Tensor) -> Tensor:
    """(N,) weights, scaled so that weighted (N,) losses sum to what they sum to without weights."""
    return weights * (losses.sum() / ((losses * weights).sum() + EPS))


def positive_importance(
    overlaps: Tensor, objects: Tensor, labels: Tensor, losses: Tensor, *, power: float = 2.0, bias: float = 0.0
) -> Tensor:
    """(Q,) classification weights of positives by their hierarchical local rank (section 4.1 and eq. 4).

    overlaps: (Q,) of the predicted box with the object. objects: (Q,) number of the object, different in every image.
    labels: (Q,). losses: (Q,) classification losses, whose weighted sum stays. Positives are ranked among those of
    their object first, and those of equal rank among their class then.
    """
    if len(labels) == 0:
        return overlaps
    most = labels.bincount().max()
    local = overlaps + (most - ranks_in_groups(overlaps, objects))
    weights = (most - ranks_in_groups(local, labels)) / most
    return kept_sum((bias + (1 - bias) * weights) ** power, losses)


def suppressors(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """(N,) the group of each of (N, 4) boxes: that of the box which suppresses it, itself where none does."""
    keep = nms(boxes, scores, threshold)
    groups = (pairwise_iou(boxes, boxes[keep]) >= threshold).int().argmax(dim=1)
    groups[keep] = torch.arange(len(keep), device=keep.device)
    return groups


def negative_importance(scores: Tensor, boxes: Tensor, threshold: float) -> Tensor:
    """(N,) importance of negatives: by score among those that suppress each other, and by score among equal ranks.

    scores: (N,) best score of a class. boxes: (N, 4) predicted. threshold: overlap from which on boxes are one group.
    """
    return len(scores) - ranks_in_groups(scores, suppressors(boxes, scores, threshold)) + scores


def classification_aware(losses: Tensor, scores: Tensor, *, power: float = 1.0, bias: float = 0.2) -> Tensor:
    """The sum of (Q, 4) regression losses, each weighted by the (Q,) score of its class, through which a gradient flows
    (section 4.2, eq. 6); the weights are scaled to a mean of one."""
    weights = (bias + (1 - bias) * scores) ** power
    return (losses * (weights * (len(weights) / weights.sum()))[:, None]).sum()
