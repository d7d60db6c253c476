"""Backbones by their MMDetection names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from ..backbones.darknet import Darknet
from ..backbones.hrnet import HRNet
from ..backbones.regnet import RegNet
from ..backbones.res2net import Bottle2neck
from ..backbones.resnest import resnest
from ..backbones.resnet import Bottleneck, Deform, Plugin, ResNet
from ..backbones.vgg import SSDVGG
from ..layers import BN
from ..layers.context_block import ContextBlock
from ..layers.generalized_attention import GeneralizedAttention
from .parts import conv_of, deformable, norm_of
from .settings import ConfigError, Settings


def backbone_of(model: Settings) -> nn.Module:
    """The backbone of a detector, with random weights; where its pretrained ones lay plays no part."""
    settings = model.part("backbone")
    settings.ignored("init_cfg", "pretrained", "with_cp", "zero_init_residual")
    model.ignored("pretrained")
    kind = settings.take("type")
    if kind not in BACKBONES:
        raise settings.untranslated("type", f"expected {', '.join(BACKBONES)}")
    return BACKBONES[kind](settings)


def _resnet(settings: Settings, block: Callable[..., nn.Module] | None = None, **options: Any) -> nn.Module:
    shared = _staged(settings)
    stages = settings.only("num_stages", 4, 3, 2, 1)
    base = settings.take("base_channels", 64)
    settings.only("in_channels", 3)
    settings.only("multi_grid", None)
    settings.only("contract_dilation", False)
    if settings.take("deep_stem", False):
        options["deep_stem_channels"] = settings.take("stem_channels", None) or base
    else:
        settings.only("stem_channels", None, base)
    if block is not None and base != 64:
        block = partial(block, base_channels=base)
    return ResNet(
        settings.take("depth"),
        style=settings.only("style", "pytorch", "caffe"),
        conv=conv_of(settings),
        plugins=_plugins(settings, stages),
        strides=tuple(settings.take("strides", (1, 2, 2, 2)))[:stages],
        dilations=tuple(settings.take("dilations", (1, 1, 1, 1)))[:stages],
        average_shortcut=settings.take("avg_down", False),
        block=block,
        base_channels=base,
        **shared,
        **options,
    )


def _staged(settings: Settings) -> dict[str, Any]:
    """What all backbones with residual stages have in common."""
    return {
        "frozen_stages": settings.take("frozen_stages", -1),
        "norm_eval": settings.take("norm_eval", True),
        "norm": norm_of(settings, default=BN),
        "deform": _deform(settings),
        "out_stages": tuple(settings.take("out_indices", (0, 1, 2, 3))),
    }


def _deform(settings: Settings) -> Deform | None:
    stages = tuple(settings.take("stage_with_dcn", (False,) * 4))
    if settings.get("dcn") is None:
        settings.ignored("dcn")
        return None
    return Deform(deformable(settings.part("dcn")), stages)


def _plugins(settings: Settings, stages: int) -> tuple[Plugin, ...]:
    made = []
    for plugin in settings.take("plugins", None) or ():
        cfg = plugin.part("cfg")
        kind = cfg.only("type", "ContextBlock", "GeneralizedAttention")
        after = plugin.only("position", "after_conv1", "after_conv2", "after_conv3").removeprefix("after_")
        where = tuple(plugin.take("stages", (True,) * stages))
        if kind == "ContextBlock":
            cfg.only("pooling_type", "att")
            cfg.only("fusion_types", ("channel_add",))
            made.append(Plugin("context_block", partial(ContextBlock, ratio=cfg.take("ratio")), after, where))
            continue
        cfg.only("spatial_range", -1)
        build = partial(
            GeneralizedAttention,
            terms=cfg.take("attention_type"),
            heads=cfg.take("num_heads", 9),
            key_stride=cfg.take("kv_stride", 2),
        )
        made.append(Plugin("gen_attention_block", build, after, where))
    return tuple(made)


def _resnext(settings: Settings) -> nn.Module:
    groups, width = settings.take("groups", 1), settings.take("base_width", 4)
    return _resnet(settings, partial(Bottleneck, groups=groups, base_width=width))


def _resnet_v1d(settings: Settings) -> nn.Module:
    settings.setdefault("deep_stem", True)
    settings.setdefault("avg_down", True)
    return _resnet(settings)


def _res2net(settings: Settings) -> nn.Module:
    block = partial(Bottle2neck, scales=settings.take("scales", 4), base_width=settings.take("base_width", 26))
    settings.only("base_channels", 64)
    settings.only("deep_stem", True)
    settings.only("avg_down", True)
    settings.update(deep_stem=True, avg_down=True)
    return _resnet(settings, block)


def _resnest(settings: Settings) -> nn.Module:
    depth = settings.only("depth", 50, 101)
    settings.only("stem_channels", {50: 64, 101: 128}[depth])
    for key, value in (("radix", 2), ("reduction_factor", 4), ("avg_down_stride", True), ("num_stages", 4)):
        settings.only(key, value)
    settings.only("out_indices", (0, 1, 2, 3))
    settings.only("frozen_stages", 1)
    settings.only("norm_eval", False)
    settings.only("style", "pytorch")
    _plain_norm(settings)
    return resnest(depth)


def _plain_norm(settings: Settings) -> None:
    norm = norm_of(settings, default=BN)
    if norm != BN:
        raise settings.untranslated("norm_cfg", "expected plain batch normalization")


def _regnet(settings: Settings) -> nn.Module:
    name = settings.take("arch")
    settings.only("style", "pytorch")
    settings.only("strides", (2, 2, 2, 2))
    settings.only("base_channels", 32)
    if not isinstance(name, str):
        raise settings.untranslated("arch", "expected the name of a RegNetX")
    return RegNet(name, **_staged(settings))


def _hrnet(settings: Settings) -> nn.Module:
    extra = settings.part("extra")
    width = extra.part("stage2").get("num_channels", (0,))[0]
    expected = {
        "stage1": {
            "num_modules": 1,
            "num_branches": 1,
            "block": "BOTTLENECK",
            "num_blocks": (4,),
            "num_channels": (64,),
        },
        "stage2": {"num_modules": 1, "num_branches": 2},
        "stage3": {"num_modules": 4, "num_branches": 3},
        "stage4": {"num_modules": 3, "num_branches": 4},
    }
    for stage, numbers in expected.items():
        given = extra.part(stage)
        branches = numbers["num_branches"]
        rest = {
            "block": "BASIC",
            "num_blocks": (4,) * branches,
            "num_channels": tuple(width * 2**branch for branch in range(branches)),
        }
        for key, value in {**rest, **numbers}.items():
            given.only(key, value)
    settings.only("norm_eval", True)
    settings.only("frozen_stages", -1)
    _plain_norm(settings)
    return HRNet(width)


def _vgg(settings: Settings) -> nn.Module:
    settings.only("depth", 16)
    settings.only("with_last_pool", False)
    settings.only("ceil_mode", True)
    settings.only("out_indices", (3, 4))
    settings.only("out_feature_indices", (22, 34))
    settings.ignored("input_size")
    return SSDVGG()


def _darknet(settings: Settings) -> nn.Module:
    settings.only("depth", 53)
    settings.only("out_indices", (3, 4, 5))
    settings.only("frozen_stages", -1)
    settings.only("norm_eval", True)
    norm = norm_of(settings, default=BN)
    if norm != BN:
        raise settings.untranslated("norm_cfg", "expected plain batch normalization")
    return Darknet()


BACKBONES: dict[str, Callable[[Settings], nn.Module]] = {
    "ResNet": _resnet,
    "ResNetV1d": _resnet_v1d,
    "ResNeXt": _resnext,
    "Res2Net": _res2net,
    "ResNeSt": _resnest,
    "RegNet": _regnet,
    "HRNet": _hrnet,
    "SSDVGG": _vgg,
    "Darknet": _darknet,
}


def channels_of(backbone: Any, owner: Settings, key: str = "in_channels") -> tuple[int, ...]:
    """The backbone's output channels, which the neck must expect."""
    given = owner.take(key)
    own = tuple(backbone.out_channels)
    if (tuple(given) if isinstance(given, (list, tuple)) else (given,)) != own:
        raise ConfigError(f"{owner.place(key)} = {given!r}: the backbone gives {own}")
    return own
