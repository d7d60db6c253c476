"""Region extractors by their MMDetection names."""

from __future__ import annotations

from torch import nn

from ..methods.groie import GenericRoIExtractor
from ..methods.point_rend import STRIDE, PointExtractor
from ..roi.deform_pool import GAMMA, HIDDEN, DeformRoIPool
from ..roi.extractor import RoIAlign, RoIExtractor
from .parts import strides_of
from .settings import Settings


def extractor_of(settings: Settings) -> nn.Module:
    """What makes features of regions from a pyramid."""
    settings.ignored("init_cfg")
    kind = settings.only("type", "SingleRoIExtractor", "GenericRoIExtractor")
    layer = settings.part("roi_layer")
    if kind == "GenericRoIExtractor":
        return _points(settings, layer) if layer.get("type") == "SimpleRoIAlign" else _generic(settings, layer)
    strides = strides_of(settings, "featmap_strides")
    pool = layer.only("type", "RoIAlign", "DeformRoIPoolPack", "ModulatedDeformRoIPoolPack")
    if pool == "RoIAlign":
        # Regions have the channels of the pyramid.
        settings.ignored("out_channels")
        layers: list[nn.Module] = [*_aligned(layer, strides)]
    else:
        channels = settings.take("out_channels")
        layer.only("output_channels", channels)
        layer.only("deform_fc_channels", HIDDEN)
        layer.only("sampling_ratio", 0)
        layer.only("gamma", GAMMA)
        modulated = pool != "DeformRoIPoolPack"
        size = layer.take("output_size")
        layers = [DeformRoIPool(size, stride, channels=channels, modulated=modulated) for stride in strides]
    return RoIExtractor(layers, finest_scale=settings.take("finest_scale", 56))


def _aligned(layer: Settings, strides: tuple[int, ...]) -> list[RoIAlign]:
    layer.only("type", "RoIAlign")
    layer.only("pool_mode", "avg")
    layer.only("use_torchvision", False)
    size, ratio = layer.take("output_size"), layer.take("sampling_ratio", 0)
    aligned = layer.take("aligned", True)
    return [RoIAlign(size, stride, sampling_ratio=ratio, aligned=aligned) for stride in strides]


def _generic(settings: Settings, layer: Settings) -> GenericRoIExtractor:
    strides, channels = strides_of(settings, "featmap_strides"), settings.take("out_channels")
    layer.only("type", "RoIAlign")
    layer.only("pool_mode", "avg")
    layer.only("sampling_ratio", 2, default=0)
    layer.only("aligned", True)
    settings.only("aggregation", "sum")
    before, after = settings.part("pre_cfg"), settings.part("post_cfg")
    for part, numbers in (
        (before, {"type": "ConvModule", "in_channels": channels, "out_channels": channels, "kernel_size": 5}),
        (before, {"padding": 2, "norm_cfg": None, "conv_cfg": None}),
        (after, {"type": "GeneralizedAttention", "in_channels": channels, "spatial_range": -1, "num_heads": 6}),
        (after, {"attention_type": "0100", "kv_stride": 2}),
    ):
        for key, value in numbers.items():
            part.only(key, value, default=value if value is None else ())
    before.ignored("inplace")
    return GenericRoIExtractor(layer.take("output_size"), strides, channels=channels)


def _points(settings: Settings, layer: Settings) -> PointExtractor:
    settings.only("featmap_strides", (STRIDE,))
    settings.only("aggregation", "concat", "sum", default="sum")
    settings.ignored("out_channels")
    layer.only("type", "SimpleRoIAlign")
    layer.only("aligned", True)
    return PointExtractor(layer.take("output_size"))
