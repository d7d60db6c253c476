"""Small things done to boxes.

Shape letters: N boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .structures import ImageBatch, ImageSize, OpenBatch


def clip_boxes(boxes: Tensor, size: ImageSize) -> Tensor:
    """(N, ..., 4) xyxy boxes cut to an image of (h, w), or each to its own of (N,) heights and widths."""
    height, width = size
    if isinstance(height, Tensor):
        limits = torch.stack((width, height, width, height), dim=-1)  # type: ignore[arg-type]
        limits = limits.reshape(-1, *[1] * (boxes.ndim - 2), 4)
    else:
        limits = boxes.new_tensor((width, height, width, height))
    return torch.minimum(boxes.clamp(min=0), limits)


def to_output_frame(boxes: Tensor, images: ImageBatch, index: int) -> Tensor:
    """(N, 4) boxes from batch pixels to the pixels in which detections are given; (B, N, ..., 4) of an OpenBatch."""
    if isinstance(images, OpenBatch):
        return boxes / _factors(boxes, images)
    return (boxes - boxes.new_tensor(images.offset(index) * 2)) / boxes.new_tensor(images.scale(index) * 2)


def to_batch_frame(boxes: Tensor, images: ImageBatch, index: int) -> Tensor:
    """(N, 4) boxes from the pixels in which detections are given to batch pixels; (B, N, 4) of an OpenBatch."""
    if isinstance(images, OpenBatch):
        return boxes * _factors(boxes, images)
    return boxes * boxes.new_tensor(images.scale(index) * 2) + boxes.new_tensor(images.offset(index) * 2)


def _factors(boxes: Tensor, images: OpenBatch) -> Tensor:
    return images.scales.repeat(1, 2).reshape(-1, *[1] * (boxes.ndim - 2), 4)


def box_centres(boxes: Tensor) -> Tensor:
    """(N, 4) xyxy boxes to (N, 2) centres."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def box_sizes(boxes: Tensor) -> Tensor:
    """(N, 4) xyxy boxes to (N, 2) widths and heights."""
    return boxes[:, 2:] - boxes[:, :2]


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) boxes by their corners to boxes by centre, width and height."""
    return torch.cat(((boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]), dim=-1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) boxes by centre, width and height to boxes by their corners."""
    half = boxes[..., 2:] / 2
    return torch.cat((boxes[..., :2] - half, boxes[..., :2] + half), dim=-1)
