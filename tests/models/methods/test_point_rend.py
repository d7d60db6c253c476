"""PointRend: where points are drawn and read, subdivision and losses, point by point.

Shape letters: R regions, C channels, K classes, P points, M mask size.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from plain_regions import as_rois, positives, pyramid, trained_on, two_images

from sdk.models.methods import point_rend
from sdk.models.methods.point_rend import (
    CoarseMaskHead,
    PointExtractor,
    PointHead,
    PointRendRoIHead,
    PointSampler,
    point_targets,
    sample_points,
)
from sdk.models.roi.box_head import BoxHead
from sdk.models.roi.extractor import roi_align_extractor
from sdk.models.roi.rois import sample_regions

CHANNELS = 8


def read(plane, x, y):
    """An (H, W) plane between its pixels, whose centres lie at halves; zero outside."""
    total, left, top = 0.0, math.floor(x - 0.5), math.floor(y - 0.5)
    for column in (left, left + 1):
        for row in (top, top + 1):
            if 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]:
                share = (1 - abs(x - 0.5 - column)) * (1 - abs(y - 0.5 - row))
                total += share * float(plane[row, column])
    return total


def small_head(**settings) -> PointRendRoIHead:
    torch.manual_seed(0)
    head = PointRendRoIHead(
        bbox_roi_extractor=roi_align_extractor(7, (4, 8)),
        bbox_head=BoxHead(num_classes=2, in_channels=CHANNELS, fc_channels=16),
        mask_roi_extractor=PointExtractor(size=8),
        mask_head=CoarseMaskHead(num_classes=2, in_channels=CHANNELS, channels=CHANNELS, roi_size=8, fc_channels=16),
        point_head=PointHead(num_classes=2, in_channels=CHANNELS, channels=CHANNELS),
        **settings,
    )
    torch.nn.init.normal_(head.mask_head.fc_logits.weight)
    torch.nn.init.normal_(head.point_head.fc_logits.weight)
    return head


ROIS = torch.tensor([[0.0, 4.0, 6.0, 40.0, 50.0], [0.0, -8.0, 30.0, 30.0, 70.0], [1.0, 20.0, 10.0, 90.0, 60.0]])


def features_by_hand(level, roi, x, y):
    """(C,) features of the finest level at a point of a region, which is given in shares of the region."""
    image, x1, y1, x2, y2 = roi.tolist()
    place = (x1 + x * (x2 - x1)) / 4, (y1 + y * (y2 - y1)) / 4
    return torch.tensor([read(plane, *place) for plane in level[int(image)]])


def test_points_of_a_map():
    torch.manual_seed(0)
    maps, points = torch.randn(2, 3, 4, 6), torch.rand(2, 20, 2) * 1.2 - 0.1
    got = sample_points(maps, points)
    for region in range(2):
        for channel in range(3):
            for place, (x, y) in enumerate(points[region].tolist()):
                wanted = read(maps[region, channel], x * 6, y * 4)
                assert float(got[region, channel, place]) == pytest.approx(wanted, abs=1e-5)


def test_regions_are_read_at_the_centres_of_their_cells():
    features = pyramid(CHANNELS)
    got = PointExtractor(size=3)(features, ROIS)
    for region, roi in enumerate(ROIS):
        for row in range(3):
            for column in range(3):
                wanted = features_by_hand(features[0], roi, (column + 0.5) / 3, (row + 0.5) / 3)
                torch.testing.assert_close(got[region, :, row, column], wanted, rtol=1e-4, atol=1e-4)


def test_most_of_the_points_are_the_most_uncertain(monkeypatch):
    """Of three times as many points as are wanted; the last quarter is drawn anew."""
    generator = torch.Generator().manual_seed(0)
    drawn, anew = torch.rand(2, 24, 2, generator=generator), torch.rand(2, 2, 2, generator=generator)
    draws = iter((drawn, anew))

    def rand(*shape, device):
        values = next(draws)
        assert shape == tuple(values.shape)
        return values

    logits = torch.randn(2, 5, 5, generator=generator)
    with monkeypatch.context() as patch:
        patch.setattr(point_rend.torch, "rand", rand)
        got = PointSampler(points=8, oversampling=3, uncertain_share=0.75)(logits)
    for region in range(2):
        doubt = {(x, y): abs(read(logits[region], x * 5, y * 5)) for x, y in drawn[region].tolist()}
        wanted = sorted(doubt, key=lambda point: doubt[point])[:6]
        assert [tuple(point) for point in got[region, :6].tolist()] == wanted
    assert torch.equal(got[:, 6:], anew)


def test_targets_are_the_masks_at_the_points():
    proposals, _, targets = two_images()
    head = small_head()
    regions = [sample_regions(p, t, head.assigner, head.sampler) for p, t in zip(proposals, targets, strict=True)]
    count = len(regions[0].matched)
    assert len(regions[1].matched) == 0
    points = torch.rand(count, 10, 2, generator=torch.Generator().manual_seed(0))
    got = point_targets(points, regions, targets)
    for place in range(count):
        x1, y1, x2, y2 = regions[0].boxes[place].tolist()
        mask = targets[0].masks[regions[0].matched[place]]
        for number, (x, y) in enumerate(points[place].tolist()):
            wanted = read(mask, x1 + x * (x2 - x1), y1 + y * (y2 - y1))
            assert float(got[place, number]) == pytest.approx(wanted, abs=1e-4)


def decided_by_hand(head, features, roi, coarse, x, y):
    """(K,) logits of one point: every layer reads the coarse logits again."""
    values = features_by_hand(features[0], roi, x, y)
    size = coarse.shape[-1]
    rough = torch.tensor([read(plane, x * size, y * size) for plane in coarse])
    for layer in head.fcs:
        joined = torch.cat((values, rough))
        values = (layer.conv.weight[:, :, 0] @ joined + layer.conv.bias).clamp(min=0)
    return head.fc_logits.weight[:, :, 0] @ torch.cat((values, rough)) + head.fc_logits.bias


def doubled(mask):
    """(M, M) to (2 M, 2 M), bilinearly; beyond the outermost centres as there."""
    size = len(mask)
    out = np.zeros((2 * size, 2 * size))
    for row in range(2 * size):
        for column in range(2 * size):
            x, y = (min(max((place + 0.5) / 2, 0.5), size - 0.5) for place in (column, row))
            out[row, column] = read(mask, x, y)
    return out


@pytest.mark.parametrize(("per_step", "decided_in"), [(10, (10, 10)), (256, (None, 256)), (1000, (None, 256))])
def test_subdivision(per_step, decided_in):
    """Masks are doubled twice; the points in doubt are decided anew, unless the next step decides all of its own."""
    head, features = small_head(subdivisions=2, points_per_step=per_step), pyramid(CHANNELS)
    coarse = 3 * torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    labels = torch.tensor([0, 1, 1])
    with torch.no_grad():
        got = head.refine(features, ROIS, coarse, labels)
        for region, label in enumerate(labels.tolist()):
            mask = coarse[region, label].double().numpy()
            for count in decided_in:
                mask = doubled(mask)
                size = len(mask)
                order = sorted(range(size * size), key=lambda i: abs(mask.ravel()[i]))
                for index in order[: count or 0]:
                    x, y = (index % size + 0.5) / size, (index // size + 0.5) / size
                    new = decided_by_hand(head.point_head, features, ROIS[region], coarse[region], x, y)
                    mask[index // size, index % size] = float(new[label])
            torch.testing.assert_close(got[region], torch.from_numpy(mask).float(), rtol=1e-3, atol=1e-3)


def test_point_loss():
    head, features = small_head(), pyramid(CHANNELS)
    proposals, images, targets = two_images()
    points = torch.rand(1, 6, 2, generator=torch.Generator().manual_seed(3))
    seen = []

    def fixed(logits):
        seen.append(logits)
        return points.expand(len(logits), -1, -1)

    head.point_sampler = fixed
    with torch.no_grad():
        got = head.loss(features, proposals, images, targets)
        regions = positives(trained_on(proposals[0].tolist(), targets[0].boxes.tolist(), 0.5))
        rois = as_rois([regions])
        coarse = head.mask_head(head.mask_roi_extractor(features, rois))
        labels = [int(targets[0].labels[region.number]) for region in regions]
        # Points are drawn by the doubt about the region's own class.
        torch.testing.assert_close(seen[0], torch.stack([m[k] for m, k in zip(coarse, labels, strict=True)]))
        total = 0.0
        for region, roi, own, label in zip(regions, rois, coarse, labels, strict=True):
            x1, y1, x2, y2 = region.box
            for x, y in points[0].tolist():
                logit = float(decided_by_hand(head.point_head, features, roi, own, x, y)[label])
                wanted = read(targets[0].masks[region.number], x1 + x * (x2 - x1), y1 + y * (y2 - y1))
                total += math.log1p(math.exp(-abs(logit))) + max(logit, 0) - wanted * logit
    assert len(regions) > 2
    assert float(got["loss_point"]) == pytest.approx(total / len(regions) / 6, rel=1e-3)


def test_losses_without_objects_reach_every_parameter():
    head, features = small_head(), pyramid(CHANNELS)
    proposals, images, targets = two_images()
    losses = head.loss(features, proposals, images, [targets[1], targets[1]])
    sum(losses.values()).backward()
    assert float(losses["loss_point"].detach()) == float(losses["loss_mask"].detach()) == 0
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
