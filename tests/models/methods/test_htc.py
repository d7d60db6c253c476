"""Hybrid Task Cascade: how masks, boxes and semantics run into each other, and the losses, region by region.

Shape letters: R regions, C channels, S region size.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain_regions import as_rois, box_stage, cascade_box_heads, mask_loss, positives, pyramid, trained_on, two_images

from sdk.models.methods.cascade_rcnn import STAGE_STDS
from sdk.models.methods.htc import HTCMaskHead, HTCRoIHead
from sdk.models.roi.extractor import roi_align_extractor
from sdk.models.roi.semantic_head import FusedSemanticHead, add_semantic, semantic_roi_extractor

CHANNELS = 8


def small_head(semantic: bool = True) -> HTCRoIHead:
    torch.manual_seed(0)
    return HTCRoIHead(
        bbox_roi_extractor=[roi_align_extractor(7, (4, 8)) for _ in range(3)],
        bbox_head=cascade_box_heads(CHANNELS),
        mask_roi_extractor=[roi_align_extractor(14, (4, 8)) for _ in range(3)],
        mask_head=[HTCMaskHead(num_classes=2, follows=stage > 0, channels=CHANNELS) for stage in range(3)],
        semantic_head=FusedSemanticHead(num_classes=3, in_channels=CHANNELS, channels=CHANNELS, levels=2)
        if semantic
        else None,
    )


def convolved(module, x, padding=0):
    """A convolution with bias, and ReLU."""
    return F.conv2d(x, module.conv.weight, module.conv.bias, padding=padding).clamp(min=0)


def test_mask_features_flow_from_stage_to_stage():
    head = small_head(semantic=False)
    features, rois = pyramid(CHANNELS), torch.tensor([[0.0, 4.0, 6.0, 40.0, 50.0], [1.0, 20.0, 10.0, 90.0, 60.0]])
    flow = head.masks_forward(2, features, None, rois)
    # Every stage starts from the region features of the last extractor.
    x, before = head.mask_roi_extractor[2](features, rois), None
    for mask_head, got in zip(head.mask_head, flow, strict=True):
        y = x if before is None else x + convolved(mask_head.conv_res, before)
        for conv in mask_head.convs:
            y = convolved(conv, y, padding=1)
        torch.testing.assert_close(got, y)
        before = y
    assert head.mask_head[0].conv_res is None
    assert len(head.masks_forward(0, features, None, rois)) == 1


def resized(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """(C, H, W) to (C, height, width), bilinearly between the corners' centres."""
    out = np.zeros((len(x), height, width))
    for i in range(height):
        for j in range(width):
            y, z = i * (x.shape[1] - 1) / (height - 1), j * (x.shape[2] - 1) / (width - 1)
            top, left = min(int(y), x.shape[1] - 2), min(int(z), x.shape[2] - 2)
            a, b = y - top, z - left
            out[:, i, j] = (1 - a) * ((1 - b) * x[:, top, left] + b * x[:, top, left + 1]) + a * (
                (1 - b) * x[:, top + 1, left] + b * x[:, top + 1, left + 1]
            )
    return out


def test_levels_are_fused_for_semantics():
    torch.manual_seed(0)
    head, features = (
        FusedSemanticHead(num_classes=3, in_channels=CHANNELS, channels=CHANNELS, levels=2, convs=[]),
        pyramid(CHANNELS),
    )
    small = resized(features[0][0].double().numpy(), 8, 12)
    fused = convolved(head.lateral_convs[0], torch.from_numpy(small).float()[None])
    fused = fused + convolved(head.lateral_convs[1], features[1][:1])
    logits, embedded = head(features)
    torch.testing.assert_close(logits[:1], F.conv2d(fused, head.conv_logits.weight, head.conv_logits.bias))
    torch.testing.assert_close(embedded[:1], convolved(head.conv_embedding, fused))


def test_semantic_features_are_averaged_to_the_regions_size():
    extractor, semantic = semantic_roi_extractor(), torch.randn(1, CHANNELS, 8, 12)
    rois = torch.tensor([[0.0, 4.0, 6.0, 40.0, 50.0]])
    pooled = extractor([semantic], rois)
    for size in (14, 7):
        step = 14 // size
        got = add_semantic(torch.ones(1, CHANNELS, size, size), extractor, semantic, rois)
        for row in range(size):
            for column in range(size):
                own = pooled[:, :, row * step : (row + 1) * step, column * step : (column + 1) * step]
                torch.testing.assert_close(got[:, :, row, column], 1 + own.mean(dim=(2, 3)))


def semantic_loss_by_hand(logits, maps):
    """Pixels without a class add nothing, but are counted."""
    total = 0.0
    for image in range(2):
        for row in range(8):
            for column in range(12):
                label = int(maps[image][8 * row, 8 * column])
                if label != 255:
                    values = logits[image, :, row, column].tolist()
                    total += math.log(sum(map(math.exp, values))) - values[label]
    return 0.2 * total / (2 * 8 * 12)


def test_losses():
    """Boxes of a stage on what the stage before made, and masks on what this stage makes of them."""
    head, features = small_head(), pyramid(CHANNELS)
    proposals, images, targets = two_images()
    got = head.loss(features, proposals, images, targets)
    with torch.no_grad():
        logits, semantic = head.semantic_head(features)
        wanted = {"loss_semantic_seg": semantic_loss_by_hand(logits, [t.semantic for t in targets])}
        boxes = [p.tolist() for p in proposals]
        for stage, (weight, threshold) in enumerate(((1.0, 0.5), (0.5, 0.6), (0.25, 0.7))):
            forward = partial(head.boxes_forward, stage, features, semantic)
            made = box_stage(forward, boxes, images, targets, threshold, STAGE_STDS[stage])
            boxes = made.boxes
            again = [trained_on(b, t.boxes.tolist(), threshold) for b, t in zip(boxes, targets, strict=True)]
            masked = [positives(own) for own in again]
            assert len(masked[0]) > 2
            flow = head.masks_forward(stage, features, semantic, as_rois(masked))
            wanted[f"s{stage}.loss_cls"] = weight * made.loss_cls
            wanted[f"s{stage}.loss_bbox"] = weight * made.loss_bbox
            logits = head.mask_head[stage].logits(flow[-1])
            wanted[f"s{stage}.loss_mask"] = weight * mask_loss(logits, masked, targets)
    assert got.keys() == wanted.keys()
    for name, value in got.items():
        assert float(value.detach()) == pytest.approx(wanted[name], rel=1e-3), name
