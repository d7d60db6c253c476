"""Every method as an exported file, against the detector itself: used by a test, and by scripts/export_table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from small_detectors import image_size, representatives, unthresholded

from sdk.deployment.certificate import LIMITS, Agreement, agreement, joined
from sdk.deployment.writing import write
from sdk.errors import SdkError
from sdk.models.recipe import Recipe
from sdk.models.structures import ImageBatch
from sdk.results.exported import load_exported
from sdk.results.weights import Trained

REPRESENTATIVES = representatives()
SHARPENED = {"rpn_cls.weight": 5, "fc_cls.weight": 3, "_cls.weight": 30, "cls.conv.weight": 30}
"""By how much which weights of classifiers are multiplied: so that candidates differ, and few of them score 1."""


@dataclass(frozen=True)
class Outcome:
    """agreement: with the detector, none where it is refused. reason: of the refusal."""

    agreement: Agreement | None
    reason: str = ""


def exported(name: str, folder: Path, suffix: str = ".onnx") -> Outcome:
    """Exports a method's small detector, and compares at numbers and sizes of images that the export did not see."""
    recipe = REPRESENTATIVES[name]
    model = unthresholded(recipe)
    # Fresh classifiers score everything alike, so that rounding would decide which box suppresses which.
    for key, weight in model.named_parameters():
        factor = next((factor for ending, factor in SHARPENED.items() if key.endswith(ending)), 1)
        weight.data *= factor
    path = folder / f"{name}{suffix}"
    try:
        write(Trained(model, recipe, None, None, name), path, "outside")
    except SdkError as error:
        return Outcome(None, str(error))
    detector, each = load_exported(path).model, []
    for images in batches(recipe):
        with torch.no_grad():
            found, expected = detector.predict(images), model.predict(images)
        each += [agreement(ours, theirs, LIMITS["float32"]) for ours, theirs in zip(expected, found, strict=True)]
    return Outcome(joined(each))


def batches(recipe: Recipe) -> list[ImageBatch]:
    """Two images, then one wider, then three higher ones, of noise; of one size where the recipe has one size."""
    preparing, size = recipe.preprocessing, image_size(recipe)
    step, fixed = preparing.divisor, preparing.fixed_size
    shapes = [(2, 0, 0), (1, 0, 2 * step), (3, step, 0)]
    generator, made = torch.Generator().manual_seed(3), []
    for count, higher, wider in shapes:
        height, width = (size + higher, size + wider) if fixed is None else preparing.padded_size(fixed)
        sizes = [(height, width), (height - 20, width - 12), (height - 3, width)][:count]
        pixels = torch.randn(count, 3, height, width, generator=generator)
        for image, (h, w) in zip(pixels, sizes):
            image[:, h:], image[:, :, w:] = 0, 0
        made.append(ImageBatch(pixels, sizes, [(2 * h, 2 * w) for h, w in sizes], [(0.5, 0.5)] * count))
    return made
