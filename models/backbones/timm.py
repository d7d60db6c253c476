"""Any feature extractor of ``timm`` as a backbone, with its weights, and with the pixels that these were trained on.

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .resnet import freeze_batch_norm

log = logging.getLogger(__name__)

ANY_SIZE = {"dynamic_img_size": True, "strict_img_size": False}
"""By these arguments, where a model has them, images need not have the size that it was trained on."""
FREE = ("apache-2.0", "mit", "bsd-3-clause")
TOKEN = 16
"""Pixels of a side for which a plain transformer has one token."""


def library() -> Any:
    """The module, or ImportError with what to install."""
    try:
        return import_module("timm")
    except ImportError as error:
        raise ImportError("backbones of timm need it: pip install 'detection-sdk[timm]'") from error


def pixels_of(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation, of RGB values 0..255, with which an extractor's weights were trained.

    Raises ValueError for an unknown name, with the closest ones.
    """
    timm = library()
    if not timm.is_model(name.split(".")[0]) or (found := timm.get_pretrained_cfg(name)) is None:
        close = difflib.get_close_matches(name, timm.list_models() + timm.list_pretrained(), n=4, cutoff=0.4)
        raise ValueError(f"backbone: timm has no {name!r}{'; the closest are ' if close else ''}{', '.join(close)}")
    r, g, b = (255 * value for value in found.mean)
    s, t, u = (255 * value for value in found.std)
    return (r, g, b), (s, t, u)


class SimplePyramid(nn.Module):
    """A plain transformer's map of stride 16 to maps of strides 4, 8, 16 and 32 (Li et al., "Exploring Plain Vision
    Transformer Backbones for Object Detection", section 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.out_channels = (quarter, half, channels, channels)
        self.up4 = nn.Sequential(
            nn.ConvTranspose2d(channels, half, 2, stride=2),
            nn.GroupNorm(1, half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, stride=2),
        )
        self.up8 = nn.ConvTranspose2d(channels, half, 2, stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.up4(x), self.up8(x), x, F.max_pool2d(x, 2, ceil_mode=True)


class TimmBackbone(nn.Module):
    """(B, 3, H, W) to one map for each of ``out_stages`` 0 to 3, of strides 4 to 32; ``out_channels`` lists their
    channels.

    A plain transformer has one map, of which the others are made, and sees images so scaled that a token stands for
    16 x 16 of the pixels given. name: as ``timm`` has it, such as ``convnext_tiny.fb_in1k``. norm_eval: batch
    normalization uses its running statistics while training.

    Raises:
        ImportError: without ``timm``. ValueError: for an unknown name, or one without maps of these strides.
    """

    def __init__(self, name: str, *, out_stages: Sequence[int] = (0, 1, 2, 3), norm_eval: bool = True) -> None:
        super().__init__()
        self.name, self.out_stages, self.norm_eval = name, tuple(out_stages), norm_eval
        timm = library()
        pixels_of(name)
        with torch.device("meta"):
            accepted = inspect.signature(type(timm.create_model(name)).__init__).parameters
            self.options: dict[str, Any] = {key: value for key, value in ANY_SIZE.items() if key in accepted}
            known = timm.create_model(name, features_only=True, **self.options).feature_info
        strides, channels = known.reduction(), known.channels()
        self.plain = len(strides) > 1 and len(set(strides)) == 1
        if self.plain:
            self.patch, indices = strides[0], (-1,)
            self.pyramid = SimplePyramid(channels[-1])
            self.out_channels = tuple(self.pyramid.out_channels[stage] for stage in self.out_stages)
        else:
            wanted = [4 * 2**stage for stage in self.out_stages]
            if not set(wanted) <= set(strides):
                raise ValueError(f"backbone: {name} has maps of strides {strides}, the method needs {wanted}")
            indices = tuple(strides.index(stride) for stride in wanted)
            self.out_channels = tuple(channels[index] for index in indices)
        self.options["out_indices"] = indices
        self.body = timm.create_model(name, features_only=True, **self.options)

    def load(self, state: Mapping[str, Tensor] | None = None) -> None:
        """Loads pretrained weights: those of a file's ``state`` in the names of ``timm``, else from its hub.

        Raises whatever ``timm`` raises where they cannot be had or do not fit.
        """
        overlay = {} if state is None else {"state_dict": dict(state)}
        whole = library().create_model(
            self.name, features_only=True, pretrained=True, pretrained_cfg_overlay=overlay, **self.options
        )
        self.body.load_state_dict(whole.state_dict())
        licence = library().get_pretrained_cfg(self.name).license
        if licence not in FREE:
            log.warning("timm/%s: these weights have the licence %s; see whether you may use them", self.name, licence)

    def train(self, mode: bool = True) -> TimmBackbone:
        super().train(mode)
        if mode and self.norm_eval:
            freeze_batch_norm(self)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.plain:
            maps = self.pyramid(self.body(self.tokenizable(x))[-1])
            return tuple(maps[stage] for stage in self.out_stages)
        maps = self.body(x)
        # Transformers with windows have channels last.
        return tuple(
            one if one.shape[1] == channels else one.permute(0, 3, 1, 2).contiguous()
            for one, channels in zip(maps, self.out_channels, strict=True)
        )

    def tokenizable(self, x: Tensor) -> Tensor:
        """Images padded to whole tokens of 16 pixels, and scaled to the transformer's own patches."""
        x = F.pad(x, (0, -x.shape[3] % TOKEN, 0, -x.shape[2] % TOKEN))
        if self.patch == TOKEN:
            return x
        size = (x.shape[2] // TOKEN * self.patch, x.shape[3] // TOKEN * self.patch)
        return F.interpolate(x, size=size, mode="bilinear", antialias=True)
