"""What goes into and comes out of a detector.

Shape letters: B images of a batch, H x W padded pixels, h x w valid pixels of one image, N objects of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

ImageSize = tuple[int | Tensor, int | Tensor]
"""Height and width of an image; or, where N boxes are of several images, (N,) heights and (N,) widths."""
Suppress = Callable[[Tensor, Tensor, float, int], Tensor]
"""(G, N, 4) boxes of groups, (G, C, N) scores of each class, the greatest overlap and the most boxes of a class to the
(S, 3) group, class and box of those that are kept; scores of zero and below do not count. ONNX NonMaxSuppression."""


class _OnDevice:
    """Adds ``to(device)`` and ``pin_memory()`` to a dataclass of tensors."""

    def to(self: T, device: torch.device | str, non_blocking: bool = False) -> T:
        """A copy with every tensor on ``device``."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))  # type: ignore[attr-defined]

    def pin_memory(self: T) -> T:
        """A copy with every tensor in page-locked memory, from which a GPU copies without the CPU waiting."""
        return self._mapped(Tensor.pin_memory)  # type: ignore[attr-defined]

    def _mapped(self: T, change: Callable[[Tensor], Tensor]) -> T:
        tensors = {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}  # type: ignore[arg-type]
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items()})  # type: ignore[type-var]


@dataclass(frozen=True)
class ImageBatch(_OnDevice):
    """Images as the network sees them.

    pixels: (B, 3, H, W) float, normalized, zero padded on the right and bottom.
    sizes: valid (h, w) of each image inside the padding.
    original_sizes: (h, w) of each image before it was resized; absent when detections are wanted in batch pixels.
    scales: (x, y) factors with ``resized = original * factor``; present with ``original_sizes``.
    offsets: (x, y) at which each image's upper left corner lies in the batch; (0, 0) where absent.
    """

    pixels: Tensor
    sizes: Sequence[tuple[int, int]]
    original_sizes: Sequence[tuple[int, int]] | None = None
    scales: Sequence[tuple[float, float]] | None = None
    offsets: Sequence[tuple[int, int]] | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.shape[1] != 3:
            raise ValueError(f"ImageBatch.pixels: expected (B, 3, H, W), found {tuple(self.pixels.shape)}")
        if len(self.sizes) != len(self.pixels):
            raise ValueError(f"ImageBatch.sizes: expected {len(self.pixels)} sizes, found {len(self.sizes)}")
        if (self.original_sizes is None) != (self.scales is None):
            raise ValueError("ImageBatch: original_sizes and scales are given together or not at all")

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def padded_size(self) -> tuple[int, int]:
        """(H, W) of the batch."""
        return int(self.pixels.shape[2]), int(self.pixels.shape[3])

    def output_size(self, index: int) -> tuple[int, int]:
        """(h, w) of the frame in which detections of one image are given."""
        height, width = (self.sizes if self.original_sizes is None else self.original_sizes)[index]
        return height, width

    def scale(self, index: int) -> tuple[float, float]:
        """(x, y) factors from output pixels to batch pixels; (1, 1) where the batch was not resized."""
        x, y = (1.0, 1.0) if self.scales is None else self.scales[index]
        return x, y

    def offset(self, index: int) -> tuple[int, int]:
        """(x, y) of the image's upper left corner in batch pixels."""
        x, y = (0, 0) if self.offsets is None else self.offsets[index]
        return x, y


class OpenBatch(ImageBatch):
    """Images of a program that is being made for any number and size of them: what ``predict`` is exported with.

    Nothing may depend on what an image shows or on how many there are: detections are one ``Detections`` of all images,
    whose tensors begin with (B, M); behind an image's own, scores are 0 and labels -1.

    sizes: (B, 2) float32 valid (h, w). scales: (B, 2) float32 (x, y) factors by which the images were resized.
    suppress: how boxes suppress each other in the format.
    """

    sizes: Tensor  # type: ignore[assignment]
    scales: Tensor  # type: ignore[assignment]

    def __init__(self, pixels: Tensor, sizes: Tensor, scales: Tensor, suppress: Suppress) -> None:
        fields = {"pixels": pixels, "sizes": sizes, "scales": scales, "original_sizes": None, "offsets": None}
        for name, value in {**fields, "suppress": suppress}.items():
            object.__setattr__(self, name, value)
        self.suppress: Suppress

    @property
    def padded_size(self) -> tuple[int, int]:
        return self.pixels.shape[2], self.pixels.shape[3]

    def each_size(self, regions: int) -> tuple[Tensor, Tensor]:
        """(B R,) heights and widths for so many regions of every image, image by image."""
        height, width = self.sizes[:, None].expand(-1, regions, 2).flatten(0, 1).unbind(1)
        return height, width


@dataclass(frozen=True)
class Targets(_OnDevice):
    """The ground truth of one image, in batch pixels.

    boxes: (N, 4) float32 xyxy. labels: (N,) int64 in 0..K-1. masks: (N, H, W) uint8 or bool, or none.
    ignore_boxes: (M, 4) regions that count neither as object nor as background, or none.
    semantic: (H, W) uint8 class map at full size, 255 where unlabelled, or none.
    proposals: (P, 4) xyxy given from outside (Fast R-CNN), or none.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None
    ignore_boxes: Tensor | None = None
    semantic: Tensor | None = None
    proposals: Tensor | None = None

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4:
            raise ValueError(f"Targets.boxes: expected (N, 4), found {tuple(self.boxes.shape)}")
        if self.labels.shape != self.boxes.shape[:1]:
            raise ValueError(f"Targets.labels: expected ({len(self.boxes)},), found {tuple(self.labels.shape)}")
        if self.masks is not None and len(self.masks) != len(self.boxes):
            raise ValueError(f"Targets.masks: expected {len(self.boxes)} masks, found {len(self.masks)}")

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class Detections(_OnDevice):
    """What a detector finds in one image, highest score first.

    boxes: (N, 4) xyxy in the original image's pixels where the batch says how it was resized, else in the batch's.
    scores: (N,) in 0..1. labels: (N,) int64 in 0..K-1. masks: (N, h, w) bool in the same frame, or none.
    mask_scores: (N,) quality of each mask (Mask Scoring R-CNN), or none.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None
    mask_scores: Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, keep: Tensor | slice) -> Detections:
        return Detections(
            self.boxes[keep],
            self.scores[keep],
            self.labels[keep],
            None if self.masks is None else self.masks[keep],
            None if self.mask_scores is None else self.mask_scores[keep],
        )


@dataclass(frozen=True)
class Proposals(_OnDevice):
    """Class-agnostic boxes of one image, highest score first: boxes (N, 4) xyxy in batch pixels, scores (N,)."""

    boxes: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.boxes)
