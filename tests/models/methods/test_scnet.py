"""SCNet: context, relayed features and losses, region by region.

Shape letters: B images, R regions, C channels, F box features, K classes.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from plain_regions import as_rois, box_stage, cascade_box_heads, mask_loss, positives, pyramid, two_images

from sdk.models.methods.cascade_rcnn import STAGE_STDS
from sdk.models.methods.scnet import (
    CHANNELS,
    FeatureRelayHead,
    GlobalContextHead,
    SCNetMaskHead,
    SCNetRoIHead,
)
from sdk.models.roi.extractor import roi_align_extractor
from sdk.models.structures import Targets


def small_head() -> SCNetRoIHead:
    """Without a semantic branch, which is that of Hybrid Task Cascade."""
    torch.manual_seed(0)
    return SCNetRoIHead(
        bbox_roi_extractor=[roi_align_extractor(7, (4, 8)) for _ in range(3)],
        bbox_head=cascade_box_heads(CHANNELS),
        mask_roi_extractor=roi_align_extractor(14, (4, 8)),
        mask_head=SCNetMaskHead(num_classes=2),
        semantic_head=None,
        glbctx_head=GlobalContextHead(num_classes=2),
        feat_relay_head=FeatureRelayHead(in_channels=16),
    )


def residual(pair, x):
    inner = F.conv2d(x, pair.conv1.weight, pair.conv1.bias, padding=1).clamp(min=0)
    return x + F.conv2d(inner, pair.conv2.weight, pair.conv2.bias, padding=1)


def context_by_hand(head, coarsest):
    """(B, K) logits and (B, C) context."""
    for pair in head.convs:
        coarsest = residual(pair, coarsest)
    context = coarsest.flatten(2).sum(dim=2) / coarsest[0, 0].numel()
    return context @ head.fc.weight.t() + head.fc.bias, context


def test_context_names_the_classes_of_an_image():
    torch.manual_seed(0)
    head = GlobalContextHead(num_classes=3)
    coarsest = torch.randn(2, CHANNELS, 3, 4)
    logits, context = head([coarsest])
    wanted_logits, wanted = context_by_hand(head, coarsest)
    torch.testing.assert_close(context, wanted[:, :, None, None])
    torch.testing.assert_close(logits, wanted_logits)
    # A class that an image shows twice counts once; the other image shows nothing.
    targets = [Targets(torch.rand(3, 4), torch.tensor([2, 0, 2])), Targets(torch.zeros(0, 4), torch.zeros(0).long())]
    total = 0.0
    for row, labels in zip(logits.tolist(), ({0, 2}, set()), strict=True):
        for label, x in enumerate(row):
            total += math.log1p(math.exp(-x if label in labels else x))
    got = head.loss(logits, targets)["loss_glbctx"]
    assert float(got.detach()) == pytest.approx(3 * total / 6, rel=1e-5)


def test_relayed_features_are_box_features_as_a_map():
    """A map of 7 x 7 that rises evenly is stretched to 14 x 14, from border to border."""
    head = FeatureRelayHead(in_channels=2)
    with torch.no_grad():
        row, column = torch.arange(7.0)[:, None], torch.arange(7.0)
        # Channel 5 is the first feature times a ramp down the map, and the second one across it.
        weight = torch.zeros(CHANNELS, 7, 7, 2)
        weight[5, :, :, 0], weight[5, :, :, 1] = row.expand(7, 7), column.expand(7, 7)
        head.fc.weight.copy_(weight.reshape(-1, 2))
        got = head(torch.tensor([[1.0, 0.0], [1.0, 10.0]]))
    steps = torch.arange(14.0) * 6 / 13
    assert got.shape == (2, CHANNELS, 14, 14)
    torch.testing.assert_close(got[0, 5], steps[:, None].expand(14, 14))
    torch.testing.assert_close(got[1, 5], steps[:, None] + 10 * steps)
    assert float(got[:, :5].abs().sum()) == 0


def test_losses():
    """One mask branch, on the regions of the last box stage: it reads what the image shows and the box features."""
    head, features = small_head(), pyramid(CHANNELS)
    proposals, images, targets = two_images()
    got = head.loss(features, proposals, images, targets)
    with torch.no_grad():
        logits, context = context_by_hand(head.glbctx_head, features[-1])
        wanted = {"loss_glbctx": float(head.glbctx_head.loss(logits, targets)["loss_glbctx"])}
        shared = {}

        def forward(rois):
            x = head.bbox_roi_extractor[stage](features, rois)
            x = x + torch.stack([context[int(image)] for image in rois[:, 0]])[:, :, None, None]
            shared[stage] = head.bbox_head[stage].shared(x)
            return head.bbox_head[stage].outputs(shared[stage])

        boxes = [p.tolist() for p in proposals]
        for stage, (weight, threshold) in enumerate(((1.0, 0.5), (0.5, 0.6), (0.25, 0.7))):
            made = box_stage(forward, boxes, images, targets, threshold, STAGE_STDS[stage])
            boxes = made.boxes
            wanted[f"s{stage}.loss_cls"] = weight * made.loss_cls
            wanted[f"s{stage}.loss_bbox"] = weight * made.loss_bbox
        masked = [positives(own) for own in made.regions]
        assert len(masked[0]) > 2
        rois = as_rois(masked)
        # The second image has no positives, those of the first come first.
        x = head.mask_roi_extractor(features, rois) + head.feat_relay_head(shared[2][: len(rois)])
        x = x + context[0][:, None, None]
        for pair in head.mask_head.convs:
            x = residual(pair, x)
        # Its weight is that of three stages.
        wanted["loss_mask"] = 1.75 * mask_loss(head.mask_head.logits(x), masked, targets)
    assert got.keys() == wanted.keys()
    for name, value in got.items():
        assert float(value.detach()) == pytest.approx(wanted[name], rel=1e-3), name


def test_positives_of_both_images_are_relayed():
    """Swapping the images changes no loss: the features relayed are those of the positives of each."""
    head, features = small_head(), pyramid(CHANNELS)
    proposals, images, targets = two_images()
    targets[1] = Targets(targets[0].boxes[:1] * 0.9, targets[0].labels[:1], masks=targets[0].masks[1:])
    with torch.no_grad():
        got = head.loss(features, proposals, images, targets)
        turned = type(images)(images.pixels, images.sizes[::-1])
        swapped = head.loss([level.flip(0) for level in features], proposals[::-1], turned, targets[::-1])
    for name, value in got.items():
        torch.testing.assert_close(swapped[name], value, rtol=1e-4, atol=1e-5)
