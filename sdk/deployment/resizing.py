"""Resizing and normalization as a part of an exported network.

Shape letters: B images, H x W pixels as they come in, h x w after resizing, P x Q with padding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..datasets.transforms import Preprocessing
from ..errors import SdkError

SMALLEST = 33
"""Pixels that a padded image has at least in each direction; an ONNX file takes smaller ones too."""
UNIT = 2048
"""Weights of pixels are whole multiples of one part in so many, as OpenCV's on uint8."""


class ResizeAndNormalize(nn.Module):
    """What ``Preprocessing`` does to a batch of images of one size, in tensor operations that any format holds.

    (B, 3, H, W) uint8 RGB to (B, 3, P, Q) float32, the (2,) valid (h, w) and the (2,) factors (x, y) by which the
    images were resized. The resized pixels are those of OpenCV's bilinear interpolation, bit for bit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        if preprocessing.centered:
            raise SdkError("images in the middle of their padding (CornerNet's preprocessing) cannot be exported yet")
        self.preprocessing = preprocessing
        self.register_buffer("mean", torch.tensor(preprocessing.mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).reshape(1, 3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        given = torch.stack([torch.full((), edge, dtype=torch.float64) for edge in images.shape[2:]])
        size = self.resized_size(given)
        divisor = self.preprocessing.divisor
        # The number of blocks, not of pixels, is what a graph does not know: multiples of it divide without a rest.
        fixed = self.preprocessing.fixed_size
        if fixed is not None:
            rows, columns = self.preprocessing.padded_size(fixed)
        else:
            least = least_blocks(divisor)
            rows, columns = [_count(edge, least) * divisor for edge in ((size + divisor - 1) / divisor).floor()]
        pixels = resized(images, size, given, (rows, columns))
        if self.preprocessing.channels == "bgr":
            pixels = pixels.flip(1)
        valid = (torch.arange(rows) < size[0])[:, None] & (torch.arange(columns) < size[1])
        pixels = torch.where(valid, (pixels.float() - self.mean) / self.std, 0.0)
        return pixels, size.float(), (size / given).flip(0).float()

    def resized_size(self, given: Tensor) -> Tensor:
        """(2,) float64 (h, w) of images of (2,) float64 (H, W); ``Preprocessing.resized_size`` on tensors."""
        size = self.preprocessing.size
        if size is None:
            return given
        if self.preprocessing.fixed_size is not None:
            return torch.tensor(self.preprocessing.fixed_size, dtype=torch.float64)
        factor = torch.minimum(max(size) / given.amax(dim=0), min(size) / given.amin(dim=0))
        return (given * factor + 0.5).floor().clamp(min=1)


def resized(images: Tensor, size: Tensor, given: Tensor, padded: tuple[int, int]) -> Tensor:
    """(B, 3, H, W) uint8 to (B, 3, P, Q) int32 in 0..255, the image in the upper left (h, w); what is outside repeats.

    size, given: (2,) float64 (h, w) and (H, W).
    """
    # OpenCV divides one by the quotient, which is not always the other quotient.
    step = 1 / (size / given)
    rows, columns = (_sources(count, step[axis], given[axis]) for axis, count in enumerate(padded))
    wide = images.int()
    first, second, weight = columns
    # Beyond the last column OpenCV takes that column alone.
    lines = wide.index_select(3, first) * (UNIT - weight) + wide.index_select(3, second) * weight
    lines = _divided(lines, 16)
    first, second, weight = (values[..., None] if values.dtype == torch.int32 else values for values in rows)
    above = _divided(lines.index_select(2, first) * (UNIT - weight), 1 << 16)
    below = _divided(lines.index_select(2, second) * weight, 1 << 16)
    return _divided(above + below + 2, 4)


def _sources(count: int, step: Tensor, edge: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two neighbours that each of ``count`` pixels of an axis lies between, and the weight of the second."""
    place = ((torch.arange(count, dtype=torch.float64) + 0.5) * step - 0.5).float()
    lower = place.floor()
    weight = ((place - lower) * UNIT).round().int()
    first, last = lower.long(), edge.long() - 1
    return torch.minimum(first.clamp(min=0), last), torch.minimum((first + 1).clamp(min=0), last), weight


def _divided(values: Tensor, by: int) -> Tensor:
    return torch.div(values, by, rounding_mode="floor")


def least_blocks(divisor: int) -> int:
    """How many blocks of padding an image has at least, where an exported program has to know: a coarsest map of one
    place is a case of its own."""
    return 1 if divisor >= SMALLEST - 1 else -(-SMALLEST // divisor)


def _count(value: Tensor, least: int) -> int:
    count = value.long().item()
    torch._check(count >= least)
    torch._check(count <= 4096)
    return count  # type: ignore[return-value]
