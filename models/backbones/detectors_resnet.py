"""The ResNet of DetectoRS, which can read back what a pyramid made of it.

Shape letters: B images, C channels, H x W pixels.

Source: Qiao et al., "DetectoRS: Detecting Objects with Recursive Feature Pyramid and Switchable Atrous Convolution",
sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..layers.switchable_conv import AWSConv2d, SwitchableConv2d
from .resnet import BlockOptions, Bottleneck, Deform, ResNet


class RecursiveBottleneck(Bottleneck):
    """A bottleneck that can add ``rfp_conv`` of features fed back before its last activation."""

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
        super().__init__(
            in_channels, channels, stride=stride, dilation=dilation, downsample=downsample, options=options
        )
        self.rfp_conv: nn.Conv2d | None = None

    def forward(self, x: Tensor, feedback: Tensor | None = None) -> Tensor:
        out = self.unactivated(x)
        if self.rfp_conv is not None and feedback is not None:
            out = out + self.rfp_conv(feedback)
        return self.relu(out)


class DetectoRSResNet(ResNet):
    """A ResNet of standardized convolutions: (B, 3, H, W) to the maps of its four stages.

    switchable: the 3 x 3 convolutions of the last three stages are switchable atrous convolutions. with_image: the
    input comes first among the outputs, for a neck that runs a backbone again. feedback_channels: channels of the maps
    that the last three stages can be fed; none where they are not.
    """

    def __init__(
        self,
        depth: int = 50,
        *,
        switchable: bool,
        with_image: bool = False,
        feedback_channels: int | None = None,
    ) -> None:
        deform = Deform(SwitchableConv2d) if switchable else None
        super().__init__(depth, conv=AWSConv2d, deform=deform, block=RecursiveBottleneck)
        self.with_image = with_image
        for layer in self.modules():
            if isinstance(layer, SwitchableConv2d):
                layer.start_plain()
            if isinstance(layer, AWSConv2d):
                layer.keep_weight()
        if feedback_channels is not None:
            for name, channels in zip(self.stage_names[1:], self.out_channels[1:], strict=True):
                first = self.get_submodule(f"{name}.0")
                first.rfp_conv = nn.Conv2d(feedback_channels, channels, 1)
                nn.init.zeros_(first.rfp_conv.weight)
                nn.init.zeros_(first.rfp_conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, feedback: Sequence[Tensor] | None = None) -> tuple[Tensor, ...]:
        """feedback: one map for each stage, of the stage's size; the first is not read."""
        image = x
        x = self.maxpool(self.relu(self.get_submodule(self.norm_name)(self.conv1(x))))
        outputs = [image] if self.with_image else []
        for index, name in enumerate(self.stage_names):
            first, *others = self.get_submodule(name).children()
            x = first(x, None if feedback is None or index == 0 else feedback[index])
            for block in others:
                x = block(x)
            outputs.append(x)
        return tuple(outputs)
