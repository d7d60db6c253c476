"""One detector of every method, on a backbone small enough for a test."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from sdk.models.backbones.darknet import Darknet
from sdk.models.backbones.detectors_resnet import DetectoRSResNet
from sdk.models.backbones.hgnet import HGNetV2
from sdk.models.backbones.hourglass import HourglassNet
from sdk.models.backbones.resnet import ResNet
from sdk.models.backbones.trident_resnet import TridentResNet
from sdk.models.backbones.vgg import SSDVGG
from sdk.models.methods.yolof import yolof
from sdk.models.recipe import Recipe
from sdk.models.settings import ProposalSettings
from sdk.models.structures import ImageBatch, Targets
from sdk.models.zoo import recipes
from sdk.models.zoo.builders import innermost, own_backbone

SMALL_RESNET = partial(ResNet, 18, frozen_stages=-1, norm_eval=False, base_channels=16)
# What stands in for the backbone of a recipe, with outputs of the same strides.
SMALL = {
    ResNet: SMALL_RESNET,
    Darknet: partial(SMALL_RESNET, out_stages=(1, 2, 3)),
    HGNetV2: partial(SMALL_RESNET, out_stages=(1, 2, 3)),
    SSDVGG: partial(SMALL_RESNET, out_stages=(1, 2)),
    HourglassNet: partial(HourglassNet, channels=(16, 16, 24, 24, 24, 32), blocks=(1,) * 6, out_channels=64),
}
# Those whose method is in the backbone itself keep it.
OWN_BACKBONE = (DetectoRSResNet, TridentResNet)


def backbone_of(recipe: Recipe):
    """The class of the recipe's backbone; none where the method builds its own."""
    return innermost(own_backbone(recipe))


def representatives() -> dict[str, Recipe]:
    """The first recipe of every method by its name, of those on one of the backbones above."""
    seen, found = set(), {}
    for name, recipe in recipes().items():
        method = innermost(recipe.build)
        if method not in seen and backbone_of(recipe) in (*SMALL, *OWN_BACKBONE):
            seen.add(method)
            found[name] = recipe
    return found


def image_size(recipe: Recipe, least: int = 96) -> int:
    """Pixels of a side: at least so many, and what the method needs."""
    divisor = recipe.preprocessing.divisor
    if innermost(recipe.build) is yolof:
        # Its only map has a stride of 32; everybody else has one of 16 or finer.
        least *= 3
    return 300 if backbone_of(recipe) is SSDVGG else -(-least // divisor) * divisor


def small_detector(recipe: Recipe, num_classes: int = 3) -> nn.Module:
    """The recipe's detector, on a small backbone where the method is not in the backbone itself; all of it trains."""
    torch.manual_seed(0)
    body = backbone_of(recipe)
    smaller = {"backbone": SMALL[body]} if body in SMALL else {}
    if "proposals" in getattr(recipe.build, "keywords", {}):
        smaller["proposals"] = 100
    model = recipe.build(num_classes, **smaller)
    for module in model.modules():
        if isinstance(module, OWN_BACKBONE):
            module.frozen_stages, module.norm_eval = -1, False
            module.requires_grad_(True)
    few_regions(model)
    return model


def unthresholded(recipe: Recipe) -> nn.Module:
    """``small_detector`` for prediction, which finds something however low it scores."""
    model = small_detector(recipe).eval()
    if hasattr(model.test, "score_threshold"):
        model.test.score_threshold = 0.0
    return model


def few_regions(model: nn.Module, proposals: int = 100, sampled: int = 8, found: int = 10) -> None:
    """Second stages look at fewer regions, which is where they spend their time on small images."""
    first, second = getattr(model, "rpn_head", None), getattr(model, "roi_head", None)
    for module in () if first is None else first.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, ProposalSettings):
                setattr(module, name, replace(value, max_per_image=min(proposals, value.max_per_image)))
    for value in () if second is None else vars(second).values():
        for sampler in value if isinstance(value, list) else [value]:
            if hasattr(sampler, "pos_fraction"):
                sampler.num = min(sampled, sampler.num)
    if second is not None:
        model.test.max_per_image = found


def batch(recipe: Recipe, objects: tuple[int, int]) -> tuple[ImageBatch, list[Targets]]:
    """Two images of noise, the second smaller, with so many objects each."""
    size = image_size(recipe)
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, 3, size, size, generator=generator)
    targets = []
    for count in objects:
        low = torch.rand(count, 2, generator=generator) * size * 0.4
        boxes = torch.cat((low, low + 20 + torch.rand(count, 2, generator=generator) * size * 0.3), dim=1)
        masks = torch.zeros(count, size, size, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        targets.append(
            Targets(
                boxes=boxes,
                labels=torch.arange(count) % 3,
                masks=masks,
                semantic=torch.zeros(size, size, dtype=torch.uint8),
                proposals=torch.tensor([[8.0, 8, 60, 70], [20, 30, 80, 76], [0, 0, 30, 30]]),
            )
        )
    return ImageBatch(pixels, [(size, size), (size - 20, size - 12)]), targets
