"""ResNet and ResNeXt, and the stages that their descendants share.

Shape letters: B images, C channels, H x W pixels.

Sources: He et al., "Deep Residual Learning for Image Recognition"; Xie et al., "Aggregated Residual Transformations
for Deep Neural Networks". Part names are the published checkpoint keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn

from ..layers.deform import DeformConv2d
from ..layers.norm import BN, Norm

CHANNELS = 64
"""Channels of the stem and of the first stage's bottlenecks."""


@dataclass(frozen=True)
class Plugin:
    """A module put into the blocks of chosen stages: behind which convolution, and under which name."""

    name: str
    build: Callable[[int], nn.Module]
    after: str = "conv3"
    stages: tuple[bool, ...] = (False, True, True, True)


@dataclass(frozen=True)
class Deform:
    """Deformable 3 x 3 convolutions in chosen stages."""

    conv: Callable[..., nn.Module] = DeformConv2d
    stages: tuple[bool, ...] = (False, True, True, True)


@dataclass(frozen=True)
class BlockOptions:
    """What the blocks of one stage are made of."""

    norm: Norm = BN
    conv: Callable[..., nn.Module] = nn.Conv2d
    middle_conv: Callable[..., nn.Module] = nn.Conv2d
    style: str = "pytorch"
    plugins: tuple[Plugin, ...] = field(default_factory=tuple)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    expansion = 1

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
        self.norm_names = (f"{key}1", f"{key}2")
        self.conv1 = options.conv(
            in_channels, channels, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
        )
        self.add_module(self.norm_names[0], norm(channels))
        self.conv2 = options.conv(channels, channels, 3, padding=1, bias=False)
        self.add_module(self.norm_names[1], norm(channels))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        norm1, norm2 = (self.get_submodule(name) for name in self.norm_names)
        out = norm2(self.conv2(self.relu(norm1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions and a shortcut.

    The stride lies in the 3 x 3 convolution (``pytorch`` style) or the first 1 x 1 (``caffe`` style). With
    ``groups`` and ``base_width`` (channels of a group where ``channels`` is ``base_channels``) the 3 x 3 is that of
    ResNeXt.
    """

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
        groups: int = 1,
        base_width: int = CHANNELS,
        base_channels: int = CHANNELS,
    ) -> None:
        super().__init__()
        norm, key = options.norm, options.norm.kind
        self.norm_names = (f"{key}1", f"{key}2", f"{key}3")
        out_channels = channels * self.expansion
        width = channels if groups == 1 else int(channels * base_width / base_channels) * groups
        stride1, stride2 = (1, stride) if options.style == "pytorch" else (stride, 1)
        self.conv1 = options.conv(in_channels, width, 1, stride=stride1, bias=False)
        self.add_module(self.norm_names[0], norm(width))
        self.conv2 = options.middle_conv(
            width, width, 3, stride=stride2, padding=dilation, dilation=dilation, groups=groups, bias=False
        )
        self.add_module(self.norm_names[1], norm(width))
        self.conv3 = options.conv(width, out_channels, 1, bias=False)
        self.add_module(self.norm_names[2], norm(out_channels))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        plugin_channels = {"conv1": width, "conv2": width, "conv3": out_channels}
        self.plugin_names: dict[str, list[str]] = {place: [] for place in plugin_channels}
        for plugin in options.plugins:
            self.add_module(plugin.name, plugin.build(plugin_channels[plugin.after]))
            self.plugin_names[plugin.after].append(plugin.name)

    def plug(self, x: Tensor, place: str) -> Tensor:
        """Run the plugins that stand behind one convolution."""
        for name in self.plugin_names[place]:
            x = self.get_submodule(name)(x)
        return x

    def unactivated(self, x: Tensor) -> Tensor:
        """The residual and its shortcut, summed, before the last activation."""
        norm1, norm2, norm3 = (self.get_submodule(name) for name in self.norm_names)
        out = self.plug(self.relu(norm1(self.conv1(x))), "conv1")
        out = self.plug(self.relu(norm2(self.conv2(out))), "conv2")
        out = self.plug(norm3(self.conv3(out)), "conv3")
        out += x if self.downsample is None else self.downsample(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.unactivated(x))


def shortcut(
    in_channels: int,
    out_channels: int,
    stride: int,
    options: BlockOptions,
    average: bool = False,
    always: bool = False,
) -> nn.Module | None:
    """What makes the shortcut fit the block's output; none where it fits as it is, unless ``always``.

    average: pool before a 1 x 1 convolution of stride 1 (ResNet-D).
    """
    if stride == 1 and in_channels == out_channels and not always:
        return None
    layers: list[nn.Module] = []
    if average:
        layers.append(nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False))
        stride = 1
    layers += [options.conv(in_channels, out_channels, 1, stride=stride, bias=False), options.norm(out_channels)]
    return nn.Sequential(*layers)


def residual_stage(
    block: Callable[..., nn.Module],
    in_channels: int,
    channels: int,
    *,
    expansion: int,
    blocks: int,
    stride: int,
    dilation: int,
    options: BlockOptions,
    average_shortcut: bool = False,
    project_shortcut: bool = False,
    first_dilation: int | None = None,
) -> nn.Sequential:
    """A row of blocks, of which the first changes resolution and channels."""
    out_channels = channels * expansion
    layers = [
        block(
            in_channels,
            channels,
            stride=stride,
            dilation=dilation if first_dilation is None else first_dilation,
            downsample=shortcut(in_channels, out_channels, stride, options, average_shortcut, project_shortcut),
            options=options,
        )
    ]
    layers += [
        block(out_channels, channels, stride=1, dilation=dilation, downsample=None, options=options)
        for _ in range(1, blocks)
    ]
    return nn.Sequential(*layers)


def deep_stem(channels: int, norm: Norm, conv: Callable[..., nn.Module] = nn.Conv2d) -> nn.Sequential:
    """Three 3 x 3 convolutions instead of one 7 x 7 (ResNet-C); halves the resolution."""
    half = channels // 2
    layers: list[nn.Module] = []
    for in_channels, out_channels, stride in ((3, half, 2), (half, half, 1), (half, channels, 1)):
        layers.append(conv(in_channels, out_channels, 3, stride=stride, padding=1, bias=False))
        layers += [norm(out_channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def freeze(parts: Iterable[nn.Module]) -> None:
    """Put parts into evaluation mode and take them out of training."""
    for part in parts:
        part.eval()
        part.requires_grad_(False)


def freeze_batch_norm(root: nn.Module) -> None:
    """Keep batch normalization on its running statistics; scale and shift are still learnt."""
    for layer in root.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()


DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def init_backbone(root: nn.Module) -> None:
    """Kaiming convolutions; the offsets of deformable ones and the plugins keep their own initial values."""
    own: set[int] = set()
    for module in root.modules():
        if isinstance(module, DeformConv2d):
            own.add(id(module.conv_offset))
        if isinstance(module, Bottleneck):
            names = [name for place in module.plugin_names.values() for name in place]
            own.update(id(part) for name in names for part in module.get_submodule(name).modules())
    for layer in root.modules():
        if isinstance(layer, nn.Conv2d) and id(layer) not in own:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


class StagedBackbone(nn.Module):
    """A stem followed by stages named ``layer1``, ``layer2`` ..., of which the first may be kept as they are.

    frozen_stages: the stem and so many stages are not trained (0: the stem only, -1: all is trained).
    norm_eval: batch normalization uses its running statistics while training.
    """

    out_channels: tuple[int, ...]

    def __init__(self, *, frozen_stages: int, norm_eval: bool, out_stages: Sequence[int]) -> None:
        super().__init__()
        self.frozen_stages, self.norm_eval, self.out_stages = frozen_stages, norm_eval, tuple(out_stages)
        self.stage_names: list[str] = []

    def add_stage(self, stage: nn.Module) -> None:
        """Append a stage."""
        self.stage_names.append(f"layer{len(self.stage_names) + 1}")
        self.add_module(self.stage_names[-1], stage)

    def stem_parts(self) -> list[nn.Module]:
        """The modules before the first stage."""
        raise NotImplementedError

    def freeze_parts(self) -> None:
        """Take the frozen stages out of training."""
        if self.frozen_stages >= 0:
            freeze(self.stem_parts())
        freeze(self.get_submodule(name) for name in self.stage_names[: max(self.frozen_stages, 0)])

    def train(self, mode: bool = True):
        super().train(mode)
        self.freeze_parts()
        if mode and self.norm_eval:
            freeze_batch_norm(self)
        return self

    def run_stages(self, x: Tensor) -> tuple[Tensor, ...]:
        """The stem's output to one map for each of ``out_stages``."""
        outputs = []
        for index, name in enumerate(self.stage_names):
            x = self.get_submodule(name)(x)
            if index in self.out_stages:
                outputs.append(x)
        return tuple(outputs)


class ResNet(StagedBackbone):
    """A stem and up to four residual stages: (B, 3, H, W) to one map for each of ``out_stages``.

    depth: 18, 34, 50, 101 or 152. style: where a bottleneck strides, see ``Bottleneck``. frozen_stages: the stem
    and so many stages are not trained (0: the stem only, -1: all is trained). norm_eval: batch normalization uses
    its running statistics while training. deform and plugins: what stands in chosen stages. block: another block
    in place of the depth's own, with the same arguments. stage_blocks and base_channels: other sizes than the
    depth's own. project_shortcut: the first shortcut of every stage is a convolution, also where it would fit without
    (PaddleDetection's ResNet-vd). ``out_channels`` lists the channels of the outputs.
    """

    def __init__(
        self,
        depth: int = 50,
        *,
        style: str = "pytorch",
        frozen_stages: int = 1,
        norm_eval: bool = True,
        norm: Norm = BN,
        conv: Callable[..., nn.Module] = nn.Conv2d,
        deform: Deform | None = None,
        plugins: Sequence[Plugin] = (),
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        out_stages: Sequence[int] = (0, 1, 2, 3),
        deep_stem_channels: int | None = None,
        average_shortcut: bool = False,
        project_shortcut: bool = False,
        block: Callable[..., nn.Module] | None = None,
        stage_blocks: Sequence[int] | None = None,
        base_channels: int = CHANNELS,
    ) -> None:
        super().__init__(frozen_stages=frozen_stages, norm_eval=norm_eval, out_stages=out_stages)
        if depth not in DEPTHS:
            raise ValueError(f"ResNet depth: expected one of {sorted(DEPTHS)}, found {depth}")
        depth_block, depth_blocks = DEPTHS[depth]
        expansion = depth_block.expansion
        if deep_stem_channels is None:
            channels = base_channels
            self.conv1 = conv(3, channels, 7, stride=2, padding=3, bias=False)
            self.norm_name = f"{norm.kind}1"
            self.add_module(self.norm_name, norm(channels))
            self.relu = nn.ReLU(inplace=True)
            self.stem = None
        else:
            channels = deep_stem_channels
            self.stem = deep_stem(channels, norm, conv)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        out_channels: list[int] = []
        for index, (stride, dilation) in enumerate(zip(strides, dilations, strict=True)):
            deformed = deform is not None and deform.stages[index]
            options = BlockOptions(
                norm=norm,
                conv=conv,
                middle_conv=deform.conv if deform is not None and deformed else conv,
                style=style,
                plugins=tuple(plugin for plugin in plugins if plugin.stages[index]),
            )
            stage = residual_stage(
                block or depth_block,
                channels,
                base_channels * 2**index,
                expansion=expansion,
                blocks=(stage_blocks or depth_blocks)[index],
                stride=stride,
                dilation=dilation,
                options=options,
                average_shortcut=average_shortcut,
                project_shortcut=project_shortcut,
            )
            channels = base_channels * 2**index * expansion
            self.add_stage(stage)
            out_channels.append(channels)
        self.out_channels = tuple(out_channels[index] for index in self.out_stages)
        init_backbone(self)
        self.freeze_parts()

    def stem_parts(self) -> list[nn.Module]:
        """The modules before the first stage."""
        return [self.conv1, self.get_submodule(self.norm_name)] if self.stem is None else [self.stem]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.stem is None:
            x = self.relu(self.get_submodule(self.norm_name)(self.conv1(x)))
        else:
            x = self.stem(x)
        return self.run_stages(self.maxpool(x))


def resnext_block(groups: int, base_width: int) -> Callable[..., nn.Module]:
    """The ``block`` of a ResNeXt, such as 32x4d: ``ResNet(101, block=resnext_block(32, 4))``."""
    return partial(Bottleneck, groups=groups, base_width=base_width)
