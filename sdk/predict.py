"""Prediction on whatever holds an image."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .batching import CollateViews
from .checkpoint import Trained, load
from .datasets.reading import read_image
from .datasets.sample import Sample
from .drawing import draw_detections
from .errors import SdkError
from .evaluate import predicted, recipe_views, single_device
from .models.structures import Detections
from .models.tta import TTA
from .reporting import save_image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Prediction(Detections):
    """Detections of one image in its own pixels, and where they come from.

    classes: names in label order, or none where nobody said them. path: file of the image, or none. drawn: (H, W, 3)
    uint8 RGB picture with the detections, where drawing was asked for.
    """

    classes: tuple[str, ...] | None = None
    path: Path | None = None
    drawn: np.ndarray | None = None

    @property
    def names(self) -> list[str]:
        """Class name of each detection; its label as text where the names are unknown."""
        labels = self.labels.tolist()
        return [str(label) if self.classes is None else self.classes[label] for label in labels]

    def __getitem__(self, keep: Tensor | slice) -> Prediction:
        kept = Detections(self.boxes, self.scores, self.labels, self.masks, self.mask_scores)[keep]
        return Prediction(**vars(kept), classes=self.classes, path=self.path)


def predict(
    images: Any,
    what: Any,
    *,
    score_threshold: float | None = None,
    batch_size: int = 1,
    device: str | None = None,
    tta: TTA | None = None,
    draw: bool = False,
    draw_threshold: float = 0.3,
    out: str | os.PathLike | None = None,
) -> Prediction | list[Prediction]:
    """Finds objects in images.

    Args:
        images: a path, a folder, an (H, W, 3) uint8 RGB array, a (3, H, W) tensor (uint8, or float in 0..1), a PIL
            image; a sequence of these, or a (B, 3, H, W) tensor.
        what: a Run or its folder, a detector, a weights file, or a name of the zoo.
        score_threshold: leave out what scores less; by default the detector's own test setting.
        batch_size: images that go through the network together.
        device: such as ``cuda:1``; a GPU where there is one.
        tta: test-time augmentation, the views in which each image is seen; by default those of the recipe.
        draw: add a picture with the detections of at least ``draw_threshold``.
        out: folder to write these pictures to, as PNG files; existing ones of the same name are replaced, and it may
            not be a folder that images are read from.

    Returns:
        One Prediction for one image; a list for a folder, a sequence or a batch.

    Raises:
        DatasetError: when a file is missing or no image.
        SdkError: when something else is no image.
    """
    single, sources = _sources(images)
    trained = load(what)
    trained.model.to(single_device(device).device)
    folder = None if out is None else Path(out)
    if folder is not None:
        if any(isinstance(s, Path) and s.parent.resolve() == folder.resolve() for s in sources):
            raise SdkError(f"{folder}: images are read from this folder; give another one for the pictures")
        folder.mkdir(parents=True, exist_ok=True)
    names = picture_names(sources)
    found: list[Prediction] = []
    for start in range(0, len(sources), batch_size):
        part = sources[start : start + batch_size]
        pixels = [as_pixels(source) for source in part]
        for place, (source, image, detections) in enumerate(zip(part, pixels, detect(trained, pixels, tta)), start):
            if score_threshold is not None:
                detections = detections[detections.scores >= score_threshold]
            path = source if isinstance(source, Path) else None
            drawn = None
            if draw or folder is not None:
                drawn = draw_detections(image, detections, trained.classes, draw_threshold)
            if folder is not None and drawn is not None:
                save_image(folder / f"{names[place]}.png", drawn)
            fields = vars(detections)
            found.append(Prediction(**fields, classes=trained.classes, path=path, drawn=drawn if draw else None))
    return found[0] if single else found


def picture_names(sources: Sequence[Any]) -> list[str]:
    """What the pictures are called: the file's name, or the image's number; with a number where that is taken."""
    names: dict[str, None] = {}
    for place, source in enumerate(sources):
        stem = source.stem if isinstance(source, Path) else f"{place:06d}"
        numbered = (f"{stem}-{number}" for number in itertools.count(2))
        names[next(name for name in itertools.chain([stem], numbered) if name not in names)] = None
    return list(names)


def detect(trained: Trained, images: Sequence[np.ndarray], tta: TTA | None = None) -> list[Detections]:
    """Detections of (H, W, 3) uint8 RGB images in their own pixels, on the CPU; ``tta`` as of ``predict``."""
    if trained.recipe.needs_proposals:
        raise SdkError(f"{trained.recipe.name} needs proposals; score it on a dataset that has them")
    tta = tta or recipe_views(trained.recipe)
    nothing = np.zeros(0, np.int64)
    samples = [
        Sample(image, np.zeros((0, 4), np.float32), nothing, nothing.astype(bool), image_id=number)
        for number, image in enumerate(images)
    ]
    device = next(trained.model.parameters()).device
    views = [view.to(device) for view in CollateViews(trained.recipe.preprocessing, scales=tta.scales)(samples)]
    training = trained.model.training
    trained.model.eval()
    with torch.no_grad():
        found = predicted(trained.model, views, trained.recipe, tta)
    trained.model.train(training)
    return found


def _sources(images: Any) -> tuple[bool, list[Any]]:
    """Whether it is one image, and the images as paths and pixels."""
    if isinstance(images, (str, os.PathLike)):
        path = Path(images)
        if not path.is_dir():
            return True, [path]
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise SdkError(f"{path}: no image in this folder; expected files that end in {', '.join(IMAGE_SUFFIXES)}")
        return False, files
    if isinstance(images, Tensor) and images.ndim == 4:
        return False, list(images)
    if isinstance(images, (list, tuple)):
        return False, [source for part in images for source in _sources(part)[1]]
    return True, [images]


def as_pixels(source: Any) -> np.ndarray:
    """One image as (H, W, 3) uint8 RGB."""
    if isinstance(source, Path):
        return read_image(source)
    if isinstance(source, np.ndarray):
        if source.ndim == 3 and source.shape[2] == 3 and source.dtype == np.uint8:
            return np.ascontiguousarray(source)
        raise SdkError(f"array: expected (H, W, 3) of uint8, found {source.shape} of {source.dtype}")
    if isinstance(source, Tensor):
        if source.ndim != 3 or source.shape[0] != 3:
            raise SdkError(f"tensor: expected (3, H, W), found {tuple(source.shape)}")
        if source.is_floating_point():
            if not bool(torch.isfinite(source).all()) or float(source.min()) < 0 or float(source.max()) > 1:
                raise SdkError("tensor: expected floating point values in 0..1; a normalized batch is no image")
            source = (source * 255).round()
        return source.to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    if hasattr(source, "convert"):
        return np.array(source.convert("RGB"))
    raise SdkError(f"{type(source).__name__}: expected a path, an array, a tensor or a PIL image")
