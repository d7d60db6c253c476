"""Pretrained backbones: where they lie, and their names in ours.

ResNets (torchvision, caffe, group normalization, weight standardization, ResNeXt, ResNeSt, Res2Net), HRNets, VGG and
Darknet have our names but for what stands behind the features; RegNets come with the names of pycls or torchvision.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import Tensor

THIRD_PARTY = "https://download.openmmlab.com/pretrain/third_party"
TORCHVISION = "https://download.pytorch.org/models"
FILES = {
    "torchvision://resnet18": f"{TORCHVISION}/resnet18-f37072fd.pth",
    "torchvision://resnet34": f"{TORCHVISION}/resnet34-b627a593.pth",
    "torchvision://resnet50": f"{TORCHVISION}/resnet50-0676ba61.pth",
    "torchvision://resnet101": f"{TORCHVISION}/resnet101-63fe2227.pth",
    "torchvision://mobilenet_v2": f"{TORCHVISION}/mobilenet_v2-b0353104.pth",
    "open-mmlab://vgg16_caffe": f"{THIRD_PARTY}/vgg16_caffe-292e1171.pth",
    "open-mmlab://detectron/resnet50_caffe": f"{THIRD_PARTY}/resnet50_caffe-788b5fa3.pth",
    "open-mmlab://detectron/resnet101_caffe": f"{THIRD_PARTY}/resnet101_caffe-3ad79236.pth",
    "open-mmlab://detectron2/resnet50_caffe": f"{THIRD_PARTY}/resnet50_msra-5891d200.pth",
    "open-mmlab://detectron2/resnet101_caffe": f"{THIRD_PARTY}/resnet101_msra-6cc46731.pth",
    "open-mmlab://detectron2/resnext101_32x8d": f"{THIRD_PARTY}/resnext101_32x8d-1516f1aa.pth",
    "open-mmlab://resnext50_32x4d": f"{THIRD_PARTY}/resnext50-32x4d-0ab1a123.pth",
    "open-mmlab://resnext101_32x4d": f"{THIRD_PARTY}/resnext101_32x4d-a5af3160.pth",
    "open-mmlab://resnext101_64x4d": f"{THIRD_PARTY}/resnext101_64x4d-ee2c6f71.pth",
    "open-mmlab://contrib/resnet50_gn": f"{THIRD_PARTY}/resnet50_gn_thangvubk-ad1730dd.pth",
    "open-mmlab://detectron/resnet50_gn": f"{THIRD_PARTY}/resnet50_gn-9186a21c.pth",
    "open-mmlab://detectron/resnet101_gn": f"{THIRD_PARTY}/resnet101_gn-cac0ab98.pth",
    "open-mmlab://jhu/resnet50_gn_ws": f"{THIRD_PARTY}/resnet50_gn_ws-15beedd8.pth",
    "open-mmlab://jhu/resnet101_gn_ws": f"{THIRD_PARTY}/resnet101_gn_ws-3e3c308c.pth",
    "open-mmlab://jhu/resnext50_32x4d_gn_ws": f"{THIRD_PARTY}/resnext50_32x4d_gn_ws-0d87ac85.pth",
    "open-mmlab://jhu/resnext101_32x4d_gn_ws": f"{THIRD_PARTY}/resnext101_32x4d_gn_ws-34ac1a9e.pth",
    "open-mmlab://msra/hrnetv2_w18": f"{THIRD_PARTY}/hrnetv2_w18-00eb2006.pth",
    "open-mmlab://msra/hrnetv2_w32": f"{THIRD_PARTY}/hrnetv2_w32-dc9eeb4f.pth",
    "open-mmlab://msra/hrnetv2_w40": f"{THIRD_PARTY}/hrnetv2_w40-ed0b031c.pth",
    "open-mmlab://res2net101_v1d_26w_4s": f"{THIRD_PARTY}/res2net101_v1d_26w_4s_mmdetv2-f0a600f9.pth",
    "open-mmlab://resnest50": f"{THIRD_PARTY}/resnest50_d2-7497a55b.pth",
    "open-mmlab://resnest101": f"{THIRD_PARTY}/resnest101_d2-f3b931b2.pth",
    "open-mmlab://regnetx_800mf": f"{THIRD_PARTY}/regnetx_800mf-1f4be4c7.pth",
    "open-mmlab://regnetx_1.6gf": f"{THIRD_PARTY}/regnetx_1.6gf-5791c176.pth",
    "open-mmlab://regnetx_3.2gf": f"{THIRD_PARTY}/regnetx_3.2gf-c2599b0f.pth",
    "open-mmlab://regnetx_4.0gf": f"{THIRD_PARTY}/regnetx_4.0gf-a88f671e.pth",
    "open-mmlab://regnetx_6.4gf": f"{THIRD_PARTY}/regnetx_6.4gf-006af45d.pth",
    "open-mmlab://regnetx_8.0gf": f"{THIRD_PARTY}/regnetx_8.0gf-3c68abe7.pth",
    "open-mmlab://regnetx_12gf": f"{THIRD_PARTY}/regnetx_12gf-4c2a3350.pth",
    "open-mmlab://darknet53": f"{THIRD_PARTY}/darknet53-a628ea1b.pth",
}
"""The published names of pretrained backbones and their files."""

BEHIND_FEATURES = re.compile(
    r"(module\.)?(fc|classifier|head|final_layer|incre_modules|downsamp_modules|features\.18\.\d+)\."
)
"""What an image classifier computes from the features (MobileNetV2 in its layer 18); no part of a backbone."""

RULES: tuple[tuple[str, str], ...] = (
    (r"^backbone\.", ""),
    # VGG as a plain sequence.
    (r"^(\d+\.)", r"features.\1"),
    # RegNet of pycls: stage, block, then the projection of the input or the three convolutions a, b, c.
    (r"^stem\.conv\.", "conv1."),
    (r"^stem\.bn\.", "bn1."),
)
PYCLS_BLOCK = re.compile(r"^s(\d+)\.b(\d+)\.(proj|bn|f\.[abc](?:_bn)?)\.(.+)$")
TORCHVISION_REGNET = re.compile(r"^trunk_output\.block(\d+)\.block\d+-(\d+)\.(proj|f\.[abc])\.([01])\.(.+)$")


def to_backbone(state: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """A classifier's state under a backbone's names, without what stands behind the features.

    expected: the backbone's own names. What no rule fits keeps its name.
    """
    return {current_name(key, expected): value for key, value in state.items() if not BEHIND_FEATURES.match(key)}


def current_name(key: str, expected: Collection[str]) -> str:
    """The name that the backbone has for a classifier's, or the name itself."""
    if key in expected:
        return key
    options = [re.sub(pattern, replacement, key) for pattern, replacement in RULES]
    if block := PYCLS_BLOCK.match(key):
        stage, index, part, rest = block.groups()
        norm = part == "bn" or part.endswith("_bn")
        options.append(regnet_name(int(stage), int(index) - 1, None if part in ("proj", "bn") else part[2], norm, rest))
    elif block := TORCHVISION_REGNET.match(key):
        stage, index, part, layer, rest = block.groups()
        options.append(regnet_name(int(stage), int(index), None if part == "proj" else part[2], layer == "1", rest))
    elif key.startswith("stem."):
        options.append(key.replace("stem.0.", "conv1.").replace("stem.1.", "bn1."))
    return next((option for option in options if option in expected), key)


def regnet_name(stage: int, block: int, convolution: str | None, norm: bool, rest: str) -> str:
    """Our name of a part of a RegNet's block: convolution ``a``, ``b`` or ``c``, or none for the input's projection."""
    if convolution is None:
        return f"layer{stage}.{block}.downsample.{int(norm)}.{rest}"
    return f"layer{stage}.{block}.{'bn' if norm else 'conv'}{'abc'.index(convolution) + 1}.{rest}"
