"""Where a dense head looks: anchor boxes and points on the grid of every level.

Shape letters: L levels, H x W locations of a level, A anchors of a location, P priors of a level (H W A).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def grid_points(
    size: tuple[int, int], stride: float | tuple[float, float], device: torch.device, offset: float = 0.0
) -> Tensor:
    """(H W, 2) x and y of a level's locations, row by row; ``offset`` in cells from the cell's upper left corner."""
    stride_x, stride_y = stride if isinstance(stride, tuple) else (stride, stride)
    xs = (torch.arange(size[1], device=device, dtype=torch.float32) + offset) * stride_x
    ys = (torch.arange(size[0], device=device, dtype=torch.float32) + offset) * stride_y
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack((x.flatten(), y.flatten()), dim=1)


def octave_scales(base: float, per_octave: int) -> tuple[float, ...]:
    """Scales that divide an octave evenly: ``base * 2 ** (i / per_octave)`` (RetinaNet, section 4)."""
    return tuple(base * 2 ** (index / per_octave) for index in range(per_octave))


def base_anchors(
    base_size: float,
    scales: Sequence[float],
    ratios: Sequence[float],
    center: tuple[float, float] = (0.0, 0.0),
    ratio_major: bool = True,
) -> Tensor:
    """(A, 4) anchors of one location; a ratio is height over width at constant area.

    ratio_major: the order is ratio by ratio, scale by scale within (else scale by scale).
    """
    root = torch.tensor(ratios, dtype=torch.float32, device="cpu").sqrt()
    scale = torch.tensor(scales, dtype=torch.float32, device="cpu")
    if ratio_major:
        widths = (base_size * (1 / root)[:, None] * scale[None]).flatten()
        heights = (base_size * root[:, None] * scale[None]).flatten()
    else:
        widths = (base_size * scale[:, None] * (1 / root)[None]).flatten()
        heights = (base_size * scale[:, None] * root[None]).flatten()
    x, y = center
    return torch.stack((x - widths / 2, y - heights / 2, x + widths / 2, y + heights / 2), dim=1)


class AnchorGrid:
    """Anchors of every level: base anchors moved to every location, location by location, anchor by anchor.

    strides: step of each level in pixels. bases: (A, 4) base anchors of each level.
    """

    def __init__(self, strides: Sequence[float | tuple[float, float]], bases: Sequence[Tensor]) -> None:
        if len(strides) != len(bases):
            raise ValueError(f"AnchorGrid: expected as many bases as strides ({len(strides)}), found {len(bases)}")
        self.strides, self.bases = tuple(strides), tuple(bases)

    @property
    def square_strides(self) -> tuple[float, ...]:
        """The stride of each level, which must be the same in both directions."""
        return tuple(float(s) for s in self.strides if not isinstance(s, tuple))

    @property
    def anchors_per_location(self) -> list[int]:
        """A of each level."""
        return [len(base) for base in self.bases]

    def __call__(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> list[Tensor]:
        """(P, 4) xyxy anchors of each level of (H, W) locations."""
        anchors = []
        for size, stride, base in zip(sizes, self.strides, self.bases, strict=True):
            shift = grid_points(size, stride, device).repeat(1, 2)
            anchors.append((shift[:, None] + base.to(device)[None]).reshape(-1, 4))
        return anchors

    def valid(
        self, sizes: Sequence[tuple[int, int]], image_size: tuple[int, int], device: torch.device
    ) -> list[Tensor]:
        """(P,) bool of each level: the location's cell lies inside an image of (h, w)."""
        flags = []
        for (height, width), stride, base in zip(sizes, self.strides, self.bases, strict=True):
            stride_x, stride_y = stride if isinstance(stride, tuple) else (stride, stride)
            rows = torch.arange(height, device=device) < -(-image_size[0] // stride_y)
            columns = torch.arange(width, device=device) < -(-image_size[1] // stride_x)
            flags.append((rows[:, None] & columns[None]).flatten().repeat_interleave(len(base)))
        return flags


def anchor_grid(
    strides: Sequence[float],
    *,
    scales: Sequence[float],
    ratios: Sequence[float],
    base_sizes: Sequence[float] | None = None,
    centers: Sequence[tuple[float, float]] | None = None,
    ratio_major: bool = True,
) -> AnchorGrid:
    """Anchors of the same scales and ratios on every level.

    base_sizes: the size that the scales multiply; each level's stride where not given. centers: x and y of the anchors'
    centre in each level's first cell; its upper left corner where not given.
    """
    sizes = strides if base_sizes is None else base_sizes
    middles = [(0.0, 0.0)] * len(sizes) if centers is None else centers
    bases = [
        base_anchors(size, scales, ratios, middle, ratio_major=ratio_major)
        for size, middle in zip(sizes, middles, strict=True)
    ]
    return AnchorGrid(strides, bases)


def replace_anchors(model: nn.Module, bases: Mapping[str, Sequence[Sequence[Sequence[float]]]]) -> None:
    """Gives heads other base anchors: by the head's name, for each level as many boxes as before.

    The model keeps them in ``fitted_anchors``, for they are no part of its state and have to be saved beside it.
    """
    for name, levels in bases.items():
        head = model.get_submodule(name)
        own: AnchorGrid = head.anchors  # type: ignore[assignment]
        new = [torch.tensor(level, dtype=torch.float32).reshape(-1, 4) for level in levels]
        if [len(base) for base in new] != own.anchors_per_location:
            raise ValueError(
                f"{name}: expected {own.anchors_per_location} anchors, found {[len(base) for base in new]}"
            )
        head.anchors = AnchorGrid(own.strides, new)  # type: ignore[assignment]
    model.fitted_anchors = {**getattr(model, "fitted_anchors", {}), **bases}  # type: ignore[assignment]
