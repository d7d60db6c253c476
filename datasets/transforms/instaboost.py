"""Bridge to InstaBoost (Fang et al., ICCV 2019, https://arxiv.org/abs/1908.07801), imported only when used.

Shape letters: H x W pixels, N objects.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from ..masks import BitMasks
from ..sample import Sample
from .annotations import mask_boxes


@dataclass(frozen=True)
class InstaBoost:
    """Cuts objects out by their masks, moves them a little, and paints over the place where they were.

    probability: of doing anything to an image. scale: range of the factor by which an object is resized.
    dx, dy: an object moves by up to its width / dx and height / dy pixels. theta: range of whole degrees by which it
    is turned. color_probability: of changing the image's colours as well. This is the paper's random jitter (section
    3.2), with which the published models were trained, without the search for places that look alike.

    Ignored objects stay where they are. Objects that leave the image are dropped, and images where nothing can be
    moved are returned unchanged. Raises ValueError for samples without masks, with a semantic map or with proposals,
    which would no longer fit the image.
    """

    probability: float = 0.5
    scale: tuple[float, float] = (0.8, 1.2)
    dx: int = 15
    dy: int = 15
    theta: tuple[int, int] = (-1, 1)
    color_probability: float = 0.5

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.masks is None:
            raise ValueError(f"InstaBoost: image {sample.image_id!r} has no masks")
        if sample.semantic is not None or sample.proposals is not None:
            raise ValueError(
                f"InstaBoost: image {sample.image_id!r} has a semantic map or proposals, which stay behind"
            )
        if rng.random() >= self.probability:
            return sample
        masks = sample.masks.decode()
        boxes, visible = mask_boxes(masks)
        movable = np.flatnonzero(visible & ~sample.ignore)
        if not len(movable):
            return sample

        import instaboostfast

        config = instaboostfast.InstaBoostConfig(
            action_candidate=("normal",),
            action_prob=(1,),
            scale=self.scale,
            dx=self.dx,
            dy=self.dy,
            theta=self.theta,
            color_prob=self.color_probability,
        )
        objects = [_annotation(int(i), masks[i], boxes[i]) for i in movable]
        bgr = np.ascontiguousarray(sample.image[..., ::-1])
        with _global_randomness(rng):
            moved, bgr = instaboostfast.get_new_data(objects, bgr, config)
        masks, boxes = masks.copy(), sample.boxes.copy()
        left = np.ones(len(boxes), bool)
        for found in moved:
            i = found["category_id"]
            masks[i] = _bitmap(found["segmentation"])
            (boxes[i],), (left[i],) = mask_boxes(masks[i][None])
        image = np.ascontiguousarray(bgr[..., ::-1])
        return replace(sample, image=image, boxes=boxes, masks=BitMasks(masks)).keep(left)


def _annotation(index: int, mask: np.ndarray, box: np.ndarray) -> dict:
    """An annotation in COCO's form with plain run lengths; its category says which object it is."""
    x1, y1, x2, y2 = box.tolist()
    flat = np.concatenate([[0], mask.ravel(order="F"), [0]])
    edges = np.flatnonzero(np.diff(flat)).tolist()
    counts = np.diff([0, *edges, mask.size]).tolist()
    segmentation = {"counts": counts, "size": list(mask.shape)}
    return {"category_id": index, "segmentation": segmentation, "bbox": [x1, y1, x2 - x1, y2 - y1]}


def _bitmap(rle: dict) -> np.ndarray:
    """(H, W) uint8 of plain run lengths, columns first."""
    values = np.arange(len(rle["counts"])) % 2
    return np.repeat(values, rle["counts"]).astype(np.uint8).reshape(rle["size"], order="F")


@contextmanager
def _global_randomness(rng: np.random.Generator) -> Iterator[None]:
    """Seeds the two global generators from ``rng`` for code that draws from them, and puts them back afterwards."""
    states = random.getstate(), np.random.get_state()
    seed = int(rng.integers(2**32))
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
