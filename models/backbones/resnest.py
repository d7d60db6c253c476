"""ResNeSt: Zhang et al., "ResNeSt: Split-Attention Networks".

Shape letters: B images, C channels, H x W pixels, R radix (splits).
"""

from __future__ import annotations

from torch import Tensor, nn

from .resnet import BlockOptions, ResNet

RADIX = 2
REDUCTION = 4


class SplitAttention(nn.Module):
    """A 3 x 3 convolution into R splits, weighed channel by channel by a softmax over the splits (figure 2 right)."""

    def __init__(self, channels: int, *, dilation: int, options: BlockOptions) -> None:
        super().__init__()
        norm, key = options.norm, options.norm.kind
        self.norm_names = (f"{key}0", f"{key}1")
        hidden = max(channels * RADIX // REDUCTION, 32)
        self.conv = options.middle_conv(
            channels, channels * RADIX, 3, padding=dilation, dilation=dilation, groups=RADIX, bias=False
        )
        self.add_module(self.norm_names[0], norm(channels * RADIX))
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.add_module(self.norm_names[1], norm(hidden))
        self.fc2 = nn.Conv2d(hidden, channels * RADIX, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        norm0, norm1 = (self.get_submodule(name) for name in self.norm_names)
        splits = self.relu(norm0(self.conv(x))).unflatten(1, (RADIX, -1))
        pooled = splits.sum(dim=1).mean(dim=(2, 3), keepdim=True)
        weights = self.fc2(self.relu(norm1(self.fc1(pooled)))).unflatten(1, (RADIX, -1)).softmax(dim=1)
        return (weights * splits).sum(dim=1)


class SplitAttentionBottleneck(nn.Module):
    """A bottleneck around a split-attention convolution; average pooling strides."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        dilation: int,
        downsample: nn.Module | None,
        options: BlockOptions,
    ) -> None:
        super().__init__()
        norm, key = options.norm, options.norm.kind
        self.norm_names = (f"{key}1", f"{key}3")
        out_channels = channels * self.expansion
        self.conv1 = options.conv(in_channels, channels, 1, bias=False)
        self.add_module(self.norm_names[0], norm(channels))
        self.conv2 = SplitAttention(channels, dilation=dilation, options=options)
        self.pool = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else nn.Identity()
        self.conv3 = options.conv(channels, out_channels, 1, bias=False)
        self.add_module(self.norm_names[1], norm(out_channels))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        norm1, norm3 = (self.get_submodule(name) for name in self.norm_names)
        out = self.pool(self.conv2(self.relu(norm1(self.conv1(x)))))
        out = norm3(self.conv3(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


def resnest(depth: int) -> ResNet:
    """ResNeSt-50 or 101, whose batch statistics are learnt on."""
    return ResNet(
        depth,
        block=SplitAttentionBottleneck,
        deep_stem_channels={50: 64, 101: 128}[depth],
        average_shortcut=True,
        norm_eval=False,
    )
