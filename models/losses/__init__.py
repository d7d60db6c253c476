"""Losses: each a small object called with predictions, targets, weights and a normalizer."""

from .classification import BinaryCrossEntropy, CrossEntropy, FocalLoss, soft_binary_cross_entropy
from .iou import BoundedIoULoss, BoxLoss, CIoULoss, DIoULoss, GIoULoss, IoULoss
from .regression import BalancedL1Loss, L1Loss, SmoothL1Loss

__all__ = [
    "BalancedL1Loss",
    "BinaryCrossEntropy",
    "BoundedIoULoss",
    "BoxLoss",
    "CIoULoss",
    "CrossEntropy",
    "DIoULoss",
    "FocalLoss",
    "GIoULoss",
    "IoULoss",
    "L1Loss",
    "SmoothL1Loss",
    "soft_binary_cross_entropy",
]
