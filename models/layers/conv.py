"""Convolution, normalization and activation in one module.

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from .norm import Norm


class ConvModule(nn.Module):
    """A convolution followed by an optional normalization and activation: (B, C, H, W) to (B, C', H', W').

    The parts are named ``conv`` and ``bn`` or ``gn``, as in the published checkpoints. The convolution has a bias
    only where no normalization follows, unless ``bias`` says otherwise. ``conv`` builds the convolution; it takes
    the arguments of ``nn.Conv2d``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool | None = None,
        norm: Norm | None = None,
        activation: nn.Module | None = None,
        conv: Callable[..., nn.Module] = nn.Conv2d,
    ) -> None:
        super().__init__()
        self.conv = conv(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=norm is None if bias is None else bias,
        )
        self.norm_name = None if norm is None else norm.kind
        if norm is not None:
            self.add_module(norm.kind, norm(out_channels))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm_name is not None:
            x = self.get_submodule(self.norm_name)(x)
        return x if self.activation is None else self.activation(x)
