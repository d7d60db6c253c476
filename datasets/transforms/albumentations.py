"""Bridge to albumentations (https://albumentations.ai), which is imported only when used.

Shape letters: H x W pixels, N objects.
"""

from __future__ import annotations

import copy
import functools
import os
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..masks import BitMasks
from ..sample import Sample
from .canvas import larger_than

if TYPE_CHECKING:
    from albumentations import Compose


@dataclass(frozen=True)
class Albumentations:
    """Applies an ``albumentations.Compose`` to image, boxes, masks and semantic map.

    compose: any composition that leaves the image (H, W, 3) uint8. Of its box parameters only the thresholds are used
    (``min_area``, ``min_visibility`` ...); format and label fields are the bridge's own. Its random numbers come from
    ``rng`` alone. None stands for the policy of the published Mask R-CNN, see ``published``.

    Objects whose box is lost are dropped. Masks are decoded. What the semantic map shows from outside the image is
    unlabelled, provided that the composition fills masks with 0, as it does by default. ``Sample.scale`` stays as it
    was, because albumentations does not tell how it moved the image.
    """

    compose: Compose | None = None

    @classmethod
    def published(cls) -> Albumentations:
        """The policy of the published Mask R-CNN with albumentations: shifts, brightness, colour, JPEG, blur.

        It is built when first used. Pixels shifted in from outside are black; the published model saw mirrored ones,
        for which albumentations 2 would add mirrored boxes.
        """
        return cls()

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.proposals is not None:
            raise ValueError(f"Albumentations: image {sample.image_id!r} has proposals, which cannot be moved along")
        apply = _with_boxes(_published_policy() if self.compose is None else self.compose, rng)
        data: dict[str, Any] = {"image": sample.image, "bboxes": sample.boxes, "index": np.arange(len(sample.boxes))}
        if sample.masks is not None and len(sample.masks):
            data["masks"] = np.ascontiguousarray(sample.masks.decode())
        if sample.semantic is not None:
            # Shifted by one so that the 0 which fills masks means 255, unlabelled.
            data["mask"] = sample.semantic + np.uint8(1)
        data = apply(**data)
        image = data["image"]
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            found = f"{getattr(image, 'shape', type(image))} of {getattr(image, 'dtype', '?')}"
            raise ValueError(
                f"Albumentations: expected an image (H, W, 3) of uint8 from the composition, found {found}"
            )
        boxes = np.asarray(data["bboxes"], np.float32).reshape(-1, 4)
        # Rounding of relative coordinates can leave a sliver of a box that is outside.
        seen = larger_than(boxes, (0.01, 0.01))
        boxes, kept = boxes[seen], np.asarray(data["index"], np.int64)[seen]
        masks = None
        if sample.masks is not None:
            bits = np.asarray(data["masks"])[kept] if len(kept) else np.zeros((0, *image.shape[:2]), np.uint8)
            masks = BitMasks(bits)
        return replace(
            sample,
            image=np.ascontiguousarray(image),
            boxes=boxes,
            labels=sample.labels[kept],
            ignore=sample.ignore[kept],
            masks=masks,
            semantic=None if sample.semantic is None else data["mask"] - np.uint8(1),
        )


def _imported() -> Any:
    # On import it would ask the package index whether it is out of date.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations


def _with_boxes(compose: Compose, rng: np.random.Generator) -> Compose:
    """The same transforms, drawing from ``rng``, with boxes in pixels joined by their index."""
    library = _imported()
    given = compose.processors.get("bboxes")
    params: Any = library.BboxParams(format="pascal_voc") if given is None else copy.copy(given.params)
    params.format, params.label_fields, params.clip, params.filter_invalid_bboxes = "pascal_voc", ["index"], True, True
    joined = library.Compose(compose.transforms, bbox_params=params, p=compose.p)
    # Not by ``seed``, which would give every transform the same sequence of draws.
    joined.set_random_state(rng, random.Random(int(rng.integers(2**32))))
    return joined


@functools.cache
def _published_policy() -> Compose:
    library = _imported()
    return library.Compose(
        [
            library.Affine(translate_percent=(-0.0625, 0.0625), p=0.5),
            library.RandomBrightnessContrast(brightness_limit=(0.1, 0.3), contrast_limit=(0.1, 0.3), p=0.2),
            library.OneOf(
                [
                    library.RGBShift(r_shift_limit=10, g_shift_limit=10, b_shift_limit=10, p=1.0),
                    library.HueSaturationValue(hue_shift_limit=20, sat_shift_limit=30, val_shift_limit=20, p=1.0),
                ],
                p=0.1,
            ),
            library.ImageCompression(quality_range=(85, 95), p=0.2),
            library.ChannelShuffle(p=0.1),
            library.OneOf([library.Blur(blur_limit=3, p=1.0), library.MedianBlur(blur_limit=3, p=1.0)], p=0.1),
        ]
    )
