"""Necks by their MMDetection names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..methods.yolov3 import YOLOV3Neck
from ..necks.bfp import BFP
from ..necks.channel_mapper import ChannelMapper
from ..necks.dilated_encoder import DilatedEncoder
from ..necks.fpg import FPG
from ..necks.fpn import FPN
from ..necks.fpn_carafe import FPNCarafe
from ..necks.hrfpn import HRFPN
from ..necks.nas_fcos_fpn import NASFCOSFPN
from ..necks.nas_fpn import NASFPN
from ..necks.pafpn import PAFPN
from ..necks.ssd_neck import ExtraLayer, SSDNeck
from .backbones import channels_of
from .parts import conv_of, norm_of, plain_carafe
from .settings import Settings


def neck_of(model: Settings, backbone: Any) -> nn.Module | None:
    """The neck on a backbone, or none where there is none; several that follow each other are one sequence."""
    given = model.take("neck", None)
    if given is None:
        return None
    if isinstance(given, (list, tuple)):
        first, second = given
        neck = _neck(first, backbone)
        second.only("type", "BFP")
        channels = second.only("in_channels", *set(neck.out_channels))  # type: ignore[arg-type]
        second.only("num_levels", len(neck.out_channels))  # type: ignore[arg-type]
        second.only("refine_type", "non_local")
        return nn.Sequential(neck, BFP(channels, level=second.take("refine_level")))
    return _neck(model.part("neck"), backbone)


def _neck(settings: Settings, backbone: Any) -> nn.Module:
    settings.ignored("init_cfg")
    kind = settings.take("type")
    if kind not in NECKS:
        raise settings.untranslated("type", f"expected {', '.join(NECKS)}")
    return NECKS[kind](settings, channels_of(backbone, settings) if kind != "YOLOV3Neck" else backbone.out_channels)


def _extra(settings: Settings) -> str:
    """Where the levels beyond the backbone come from."""
    given = settings.take("add_extra_convs", False)
    names = {"on_input": "input", "on_lateral": "lateral", "on_output": "output"}
    if isinstance(given, str) and given not in names:
        raise settings.untranslated("add_extra_convs", f"expected {', '.join(names)}, True or False")
    # True meant the input unless a flag of older files says otherwise.
    on_input = settings.take("extra_convs_on_inputs", True)
    return names[given] if isinstance(given, str) else ("input" if on_input else "output") if given else "pool"


def _fpn(settings: Settings, channels: tuple[int, ...], build: Callable[..., nn.Module] = FPN) -> nn.Module:
    settings.only("end_level", -1, len(channels) - 1, default=-1)
    settings.only("act_cfg", None)
    norm = norm_of(settings)
    mode = "nearest"
    if settings.get("upsample_cfg") is not None:
        upsample = settings.part("upsample_cfg")
        mode = upsample.only("mode", "nearest", "bilinear")
        upsample.only("scale_factor", None)
    return build(
        channels,
        settings.take("out_channels"),
        num_outs=settings.take("num_outs"),
        start=settings.take("start_level", 0),
        extra=_extra(settings),
        relu_before_extra=settings.take("relu_before_extra_convs", False),
        norm=norm,
        lateral_norm=not settings.take("no_norm_on_lateral", False),
        upsample=mode,
        conv=conv_of(settings),
    )


def _pafpn(settings: Settings, channels: tuple[int, ...]) -> nn.Module:
    settings.only("upsample_cfg", None)
    return _fpn(settings, channels, PAFPN)


def _carafe(settings: Settings, channels: tuple[int, ...]) -> nn.Module:
    settings.only("num_outs", 5)
    settings.only("start_level", 0)
    settings.only("end_level", -1)
    settings.only("norm_cfg", None)
    settings.only("act_cfg", None)
    settings.only("order", ("conv", "norm", "act"))
    upsample = settings.part("upsample_cfg")
    upsample.only("type", "carafe")
    plain_carafe(upsample)
    return FPNCarafe(channels, settings.take("out_channels"))


def _hrfpn(settings: Settings, channels: tuple[int, ...]) -> nn.Module:
    settings.only("pooling_type", "AVG")
    settings.only("norm_cfg", None)
    settings.only("conv_cfg", None)
    return HRFPN(
        channels,
        settings.take("out_channels"),
        num_outs=settings.take("num_outs", 5),
        stride=settings.take("stride", 1),
    )


def _nasfpn(settings: Settings, channels: tuple[int, ...]) -> nn.Module:
    settings.only("start_level", 1)
    settings.only("end_level", -1)
    # Read by no part of this neck.
    settings.ignored("add_extra_convs")
    settings.only("num_outs", 5)
    norm = settings.part("norm_cfg")
    norm.only("type", "BN")
    norm.only("requires_grad", True)
    return NASFPN(channels, settings.take("out_channels"), stages=settings.take("stack_times"))


def _grid(settings: Settings, channels: tuple[int, ...]) -> nn.Module:
    settings.only("end_level", -1)
    order = ("act", "conv", "norm")
    for key in ("norm_cfg", "same_up_trans", "across_lateral_trans", "across_down_trans", "across_skip_trans"):
        norm = settings.part(key) if key == "norm_cfg" else settings.part(key).part("norm_cfg")
        norm.only("type", "BN")
        norm.only("requires_grad", True)
    for key, numbers in (
        ("same_up_trans", {"type": "conv", "kernel_size": 3, "stride": 2, "padding": 1}),
        ("across_lateral_trans", {"type": "conv", "kernel_size": 1}),
        ("across_down_trans", {"type": "interpolation_conv", "mode": "nearest", "kernel_size": 3}),
        ("across_skip_trans", {"type": "conv", "kernel_size": 1}),
        ("output_trans", {"type": "last_conv", "kernel_size": 3}),
    ):
        step = settings.part(key)
        for name, value in numbers.items():
            step.only(name, value)
        step.only("order", order, default=())
        step.only("inplace", False)
    for key in ("same_down_trans", "across_up_trans"):
        settings.only(key, None)
    count = settings.take("stack_times")
    settings.only("paths", ("bu",) * count)
    skips = settings.take("skip_inds")
    if len(skips) != settings.take("num_outs"):
        raise settings.untranslated("skip_inds", "expected one for each of num_outs")
    return FPG(
        channels,
        settings.take("out_channels"),
        inner_channels=settings.take("inter_channels"),
        pathways=count,
        skips=skips,
        start=settings.take("start_level", 0),
        extra_convs=bool(settings.take("add_extra_convs", False)),
    )


def _nas_fcos(settings: Settings, channels: tuple[int, ...]) -> nn.Module:
    settings.only("start_level", len(channels) - 3, default=1)
    settings.only("end_level", -1)
    settings.only("num_outs", 5)
    # Read by no part of this neck.
    settings.ignored("add_extra_convs")
    settings.part("norm_cfg").only("type", "BN")
    conv = settings.part("conv_cfg")
    conv.only("type", "DCNv2")
    conv.only("deform_groups", 2, default=1)
    return NASFCOSFPN(channels, settings.take("out_channels"))


def _dilated(settings: Settings, channels: tuple[int, ...]) -> nn.Module:
    dilations = settings.take("block_dilations")
    settings.only("num_residual_blocks", len(dilations))
    return DilatedEncoder(
        channels,
        settings.take("out_channels"),
        middle=settings.take("block_mid_channels"),
        dilations=dilations,
    )


def _channel_mapper(settings: Settings, channels: tuple[int, ...]) -> nn.Module:
    settings.only("conv_cfg", None)
    plain = {"type": "ReLU"}
    return ChannelMapper(
        channels,
        settings.take("out_channels"),
        num_outs=settings.take("num_outs", None) or len(channels),
        kernel_size=settings.take("kernel_size", 3),
        norm=norm_of(settings),
        activation=settings.only("act_cfg", None, plain, default=plain) is not None,
    )


def _ssd(settings: Settings, channels: tuple[int, ...]) -> nn.Module:
    out = tuple(settings.take("out_channels"))
    if out[: len(channels)] != channels:
        raise settings.untranslated("out_channels", f"expected the backbone's {channels} first")
    strides, paddings = settings.take("level_strides"), settings.take("level_paddings")
    settings.only("l2_norm_scale", 20.0, 20)
    last = settings.take("last_kernel_size", 3)
    widths = out[len(channels) :]
    layers = [ExtraLayer(c, s, p) for c, s, p in zip(widths, strides, paddings, strict=True)]
    layers[-1] = ExtraLayer(widths[-1], strides[-1], paddings[-1], kernel_size=last)
    return SSDNeck(channels, tuple(layers))


def _yolov3(settings: Settings, channels: tuple[int, ...]) -> nn.Module:
    settings.only("num_scales", len(channels))
    coarse_first = tuple(channels)[::-1]
    settings.only("in_channels", coarse_first)
    settings.only("out_channels", tuple(c // 2 for c in coarse_first))
    settings.only("norm_cfg", None)
    settings.only("act_cfg", None)
    return YOLOV3Neck(channels)


NECKS: dict[str, Callable[[Settings, tuple[int, ...]], nn.Module]] = {
    "FPN": _fpn,
    "PAFPN": _pafpn,
    "FPN_CARAFE": _carafe,
    "HRFPN": _hrfpn,
    "NASFPN": _nasfpn,
    "SSDNeck": _ssd,
    "YOLOV3Neck": _yolov3,
    "FPG": _grid,
    "NASFCOS_FPN": _nas_fcos,
    "DilatedEncoder": _dilated,
    "ChannelMapper": _channel_mapper,
}
