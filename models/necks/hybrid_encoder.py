"""RT-DETR's encoder (Zhao et al., "DETRs Beat YOLOs on Real-time Object Detection", section 4.2): attention within the
coarsest map alone, then fusion of the maps by convolutions, downwards and upwards.

Shape letters: B images, C channels, H x W places of a map, L levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import BN, ConvModule
from ..transformer.attention import Attention, Memory
from ..transformer.layers import Encoder, EncoderLayer
from ..transformer.positions import grid_sines

normalized_conv = partial(ConvModule, norm=BN)


class RepBlock(nn.Module):
    """A 3 x 3 and a 1 x 1 convolution side by side (Ding et al., "RepVGG", figure 2): (B, C, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = normalized_conv(channels, channels, 3, padding=1)
        self.conv2 = normalized_conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.conv1(x) + self.conv2(x))


class CSPBlock(nn.Module):
    """Blocks on one of two branches that are added: (B, C, H, W) to (B, C', H, W) (figure 4, "Fusion").

    expansion: channels inside, as a share of the output's.
    """

    def __init__(self, in_channels: int, channels: int, expansion: float = 1.0, blocks: int = 3) -> None:
        super().__init__()
        inner = int(channels * expansion)
        self.conv1 = normalized_conv(in_channels, inner, 1, activation=nn.SiLU())
        self.conv2 = normalized_conv(in_channels, inner, 1, activation=nn.SiLU())
        self.blocks = nn.Sequential(*(RepBlock(inner) for _ in range(blocks)))
        self.conv3 = nn.Identity() if inner == channels else normalized_conv(inner, channels, 1, activation=nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.blocks(self.conv1(x)) + self.conv2(x))


def csp_fusion(channels: int, expansion: float = 1.0) -> CSPBlock:
    """Fuses two concatenated maps: (B, 2 C, H, W) to (B, C, H, W)."""
    return CSPBlock(2 * channels, channels, expansion)


def activated_lateral(channels: int) -> ConvModule:
    """A 1 x 1 convolution of a coarser map before it is enlarged."""
    return normalized_conv(channels, channels, 1, activation=nn.SiLU())


def activated_downsampling(channels: int) -> ConvModule:
    """Halves a finer map."""
    return normalized_conv(channels, channels, 3, stride=2, padding=1, activation=nn.SiLU())


class HybridEncoder(nn.Module):
    """The last backbone maps, of ``in_channels``, to as many maps of ``channels`` channels at the same resolutions.

    hidden: of the attention's feed-forward network. layers: of attention. fusion, lateral, downsampling: make, from the
    channels, what fuses two concatenated maps, what a coarser map goes through before it is enlarged, and what halves
    a finer one.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        channels: int = 256,
        heads: int = 8,
        hidden: int = 1024,
        layers: int = 1,
        fusion: Callable[[int], nn.Module] = csp_fusion,
        lateral: Callable[[int], nn.Module] = activated_lateral,
        downsampling: Callable[[int], nn.Module] = activated_downsampling,
    ) -> None:
        super().__init__()
        self.input_convs = nn.ModuleList(normalized_conv(c, channels, 1) for c in in_channels)
        encode = partial(EncoderLayer, channels=channels, hidden=hidden, dropout=0.0, activation=nn.GELU)
        self.encoder = Encoder([encode(Attention(channels, heads)) for _ in range(layers)])
        fusions = range(len(in_channels) - 1)
        # Downwards from the coarsest map, upwards from the finest.
        self.lateral_convs = nn.ModuleList(lateral(channels) for _ in fusions)
        self.fpn_blocks = nn.ModuleList(fusion(channels) for _ in fusions)
        self.downsample_convs = nn.ModuleList(downsampling(channels) for _ in fusions)
        self.pan_blocks = nn.ModuleList(fusion(channels) for _ in fusions)
        self.out_channels = (channels,) * len(in_channels)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        maps = [conv(x) for conv, x in zip(self.input_convs, inputs[-len(self.input_convs) :], strict=True)]
        inner = [self.attended(maps.pop())]
        for reduce, fuse in zip(self.lateral_convs, self.fpn_blocks):
            finer = maps.pop()
            inner[-1] = reduce(inner[-1])
            inner.append(fuse(torch.cat((F.interpolate(inner[-1], size=finer.shape[2:]), finer), dim=1)))
        outs = [inner.pop()]
        for down, fuse in zip(self.downsample_convs, self.pan_blocks):
            outs.append(fuse(torch.cat((down(outs[-1]), inner.pop()), dim=1)))
        return tuple(outs)

    def attended(self, x: Tensor) -> Tensor:
        """(B, C, H, W) after attention of every place to every other."""
        values = x.flatten(2).transpose(1, 2)
        positions = grid_sines((x.shape[2], x.shape[3]), x.shape[1], like=x)
        return self.encoder(Memory(values, positions)).values.transpose(1, 2).unflatten(2, x.shape[2:])
