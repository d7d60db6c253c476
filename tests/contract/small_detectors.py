"""One detector of every method, on a backbone small enough for a test."""

from __future__ import annotations

from functools import partial

import torch
from sdk.models.backbones.resnet import ResNet
from sdk.models.recipe import Recipe
from sdk.models.structures import ImageBatch, Targets
from sdk.models.zoo import recipes
from torch import nn

SMALL_RESNET = partial(ResNet, 18, frozen_stages=-1, norm_eval=False, base_channels=16)


def representatives() -> dict[str, Recipe]:
    """The first recipe of every builder, by the recipe's name."""
    seen, found = set(), {}
    for name, recipe in recipes().items():
        method = recipe.build
        while isinstance(method, partial):
            method = method.func
        if method not in seen:
            seen.add(method)
            found[name] = recipe
    return found


def on_small_resnet(recipe: Recipe) -> bool:
    """Whether the recipe's backbone is a ResNet that may be exchanged."""
    body = getattr(recipe.build, "keywords", {}).get("backbone")
    while isinstance(body, partial):
        body = body.func
    return body is ResNet


def small_detector(recipe: Recipe, num_classes: int = 3) -> nn.Module:
    """The recipe's detector for three classes, on a small ResNet where it stands on a ResNet."""
    torch.manual_seed(0)
    if on_small_resnet(recipe):
        return recipe.build(num_classes, backbone=SMALL_RESNET)
    return recipe.build(num_classes)


def batch(recipe: Recipe, objects: tuple[int, int], size: int = 128) -> tuple[ImageBatch, list[Targets]]:
    """Two images of noise, the second smaller, with so many objects each."""
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
                proposals=torch.tensor([[8.0, 8, 60, 70], [20, 30, 100, 90], [0, 0, 30, 30]]),
            )
        )
    return ImageBatch(pixels, [(size, size), (size - 20, size - 12)]), targets
