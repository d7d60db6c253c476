"""Mask probabilities of boxes as masks of the whole image (He et al., 2017, "Mask R-CNN", section 3.1, inference).

Shape letters: N masks, h x w probabilities of a mask, H x W pixels of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import backend, reference


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Resample each mask bilinearly to its box, at pixel centres, and compare with the threshold.

    Equal to ``grid_sample`` (align_corners false, zeros outside) on the whole image, without its float canvas.

    masks: (N, h, w) probabilities. boxes: (N, 4) xyxy in image pixels; a box without width or
        height is pasted with the middle of its mask on the pixels around it, as the reference does on a CPU.
    size: (H, W). threshold: above 0; a pixel is set where its value is at least that.
    Returns: (N, H, W) bool.
    Raises: for wrong shapes, dtypes or devices, and on the CPU for boxes that are not finite.
    """
    backend.check_same_device(masks=masks, boxes=boxes)
    masks, boxes = backend.common_dtype(masks, boxes)
    implementation = torch.ops.sdk.paste_masks if backend.native(masks) else reference.paste_masks
    return implementation(masks, boxes, size[0], size[1], threshold)


def paste_and_encode(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> list[dict]:
    """``paste_masks`` and COCO run-length encoding in one pass over the box, without any canvas.

    Arguments as of ``paste_masks``; masks on an accelerator are brought to the CPU first, as small as they are.
    Returns: N dictionaries {"size": [H, W], "counts": bytes}, as ``pycocotools.mask.encode`` gives them.
    """
    masks, boxes = backend.common_dtype(masks.detach().cpu(), boxes.detach().cpu())
    if not backend.native(masks):
        return reference.paste_and_encode(masks, boxes, size[0], size[1], threshold)
    counts, lengths = torch.ops.sdk.paste_and_encode(masks, boxes, size[0], size[1], threshold)
    stream = counts.numpy().tobytes()
    found, start = [], 0
    for length in lengths.tolist():
        found.append({"size": [size[0], size[1]], "counts": stream[start : start + length]})
        start += length
    return found


if backend.LOADED:

    @torch.library.register_fake("sdk::paste_masks")
    def _(masks, boxes, height, width, threshold):
        return masks.new_empty(masks.shape[0], height, width, dtype=torch.bool)

    @torch.library.register_fake("sdk::paste_and_encode")
    def _(masks, boxes, height, width, threshold):
        size = torch.library.get_ctx().new_dynamic_size()
        return masks.new_empty(size, dtype=torch.uint8), masks.new_empty(masks.shape[0], dtype=torch.int64)
