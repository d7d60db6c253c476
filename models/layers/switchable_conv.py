"""The convolutions of DetectoRS.

Shape letters: B images, O output channels, I input channels of a group, C input channels, H x W pixels, k kernel size.

Source: Qiao et al., "DetectoRS: Detecting Objects with Recursive Feature Pyramid and Switchable Atrous Convolution",
section 4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .deform import deformed

EPS = 1e-5


class AWSConv2d(nn.Conv2d):
    """A convolution with standardized weights that can stand for any plain one.

    The (O, I, k, k) weights are brought to mean 0 and variance 1 in every output channel, times ``weight_gamma``, plus
    ``weight_beta``. These two are no parameters: weights of a plain convolution that are loaded bring along their own
    deviation and mean, and so compute what they did before. Such weights come without the two, or with the one and zero
    that these are before anything is loaded.
    """

    weight_gamma: Tensor
    weight_beta: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.register_buffer("weight_gamma", torch.ones(self.out_channels, 1, 1, 1))
        self.register_buffer("weight_beta", torch.zeros(self.out_channels, 1, 1, 1))

    @torch.no_grad()
    def keep_weight(self) -> None:
        """Set ``weight_gamma`` and ``weight_beta`` such that the standardized weights are the present ones."""
        mean, std = self.statistics()
        self.weight_gamma, self.weight_beta = std, mean

    def statistics(self) -> tuple[Tensor, Tensor]:
        """(O, 1, 1, 1) means and standard deviations of the weights."""
        variance, mean = torch.var_mean(self.weight.flatten(1), dim=1)
        return mean[:, None, None, None], (variance + EPS).sqrt()[:, None, None, None]

    def standardized_weight(self) -> Tensor:
        """(O, I, k, k) weights with which to convolve."""
        mean, std = self.statistics()
        return self.weight_gamma * (self.weight - mean) / std + self.weight_beta

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.standardized_weight(), self.bias)

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors) -> None:
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
        gamma, beta = f"{prefix}weight_gamma", f"{prefix}weight_beta"
        if f"{prefix}weight" not in state_dict:
            return
        given = gamma in state_dict and beta in state_dict
        if not given or bool((state_dict[gamma] == 1).all() and (state_dict[beta] == 0).all()):
            self.keep_weight()
            missing[:] = [name for name in missing if name not in (gamma, beta)]


class SwitchableConv2d(AWSConv2d):
    """Switchable atrous convolution: two deformable convolutions, the second three times as wide and with weights of
    its own beside the shared ones, mixed at every pixel by a switch (section 4.1), between two global contexts
    (section 4.2). It starts as the plain convolution."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.weight_diff = nn.Parameter(torch.zeros_like(self.weight))
        self.switch = nn.Conv2d(in_channels, 1, 1, stride=stride)
        self.pre_context = nn.Conv2d(in_channels, in_channels, 1)
        self.post_context = nn.Conv2d(out_channels, out_channels, 1)
        self.offset_s = nn.Conv2d(in_channels, 2 * kernel_size**2, 3, stride=stride, padding=1)
        self.offset_l = nn.Conv2d(in_channels, 2 * kernel_size**2, 3, stride=stride, padding=1)
        self.start_plain()

    def start_plain(self) -> None:
        """Zero every part but the shared weights, with the switch on the narrow convolution."""
        for part in (self.switch, self.pre_context, self.post_context, self.offset_s, self.offset_l):
            nn.init.zeros_(part.weight)
            nn.init.constant_(part.bias, 1.0 if part is self.switch else 0.0)  # type: ignore[arg-type]

    def convolve(self, x: Tensor, offset: Tensor, weight: Tensor, width: int) -> Tensor:
        """(B, C, H, W) deformably convolved with ``width`` times the dilation."""
        stride, padding, dilation = self.stride[0], width * int(self.padding[0]), width * self.dilation[0]
        return deformed(x, offset, weight, self.bias, (stride, stride), (padding, padding), (dilation, dilation))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pre_context(x.mean(dim=(2, 3), keepdim=True))
        # A map of two pixels or less has nothing to reflect.
        mode = "reflect" if min(x.shape[2:]) > 2 else "replicate"
        around = F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode=mode), 5, stride=1)
        switch = self.switch(around)
        weight = self.standardized_weight()
        narrow = self.convolve(x, self.offset_s(around), weight, 1)
        wide = self.convolve(x, self.offset_l(around), weight + self.weight_diff, 3)
        x = switch * narrow + (1 - switch) * wide
        return x + self.post_context(x.mean(dim=(2, 3), keepdim=True))
