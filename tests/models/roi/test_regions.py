"""Regions of the second stage: which, from which level, with which targets and losses, one by one.

Shape letters: R regions, Q positive ones, C channels, S region size, M mask size, K classes.
"""

from __future__ import annotations

import math

import pytest
import torch
from plain_boxes import centre_and_size, iou, random_boxes
from plain_regions import moved, trained_on, two_images

from sdk.models.assigners import MaxIoUAssigner
from sdk.models.losses import GIoULoss
from sdk.models.roi.box_head import BoxHead, by_class, region_labels
from sdk.models.roi.cascade import refined_regions
from sdk.models.roi.extractor import pyramid_levels, roi_align_extractor
from sdk.models.roi.mask_head import FCNMaskHead, mask_targets
from sdk.models.roi.rois import SampledRegions, sample_batch, to_rois
from sdk.models.samplers import RandomSampler

ASSIGN = MaxIoUAssigner(0.5, 0.5, min_positive=0.5)


def sampled(add_ground_truth: bool = True) -> list[SampledRegions]:
    proposals, _, targets = two_images()
    return sample_batch(proposals, targets, ASSIGN, RandomSampler(num=512, add_ground_truth=add_ground_truth))


def small_head(**options) -> BoxHead:
    torch.manual_seed(0)
    return BoxHead(num_classes=2, in_channels=4, roi_size=2, fc_channels=8, **options)


@pytest.mark.parametrize("add_ground_truth", [True, False])
def test_positives_come_first(add_ground_truth):
    proposals, _, targets = two_images()
    for own, target, regions in zip(proposals, targets, sampled(add_ground_truth), strict=True):
        wanted = trained_on(own.tolist(), target.boxes.tolist(), 0.5)
        wanted = [region for region in wanted if add_ground_truth or not region.is_object]
        assert regions.boxes.tolist() == [pytest.approx(region.box) for region in wanted]
        numbers = [region.number for region in wanted if region.number is not None]
        assert regions.matched.tolist() == numbers
        assert regions.labels.tolist() == [int(target.labels[number]) for number in numbers]
        assert torch.equal(regions.matched_boxes, target.boxes[regions.matched])
        assert torch.equal(regions.positive_boxes, regions.boxes[: len(numbers)])
        assert regions.is_ground_truth.tolist() == [region.is_object for region in wanted]
        best = [max((iou(r.box, box) for box in target.boxes.tolist()), default=0.0) for r in wanted]
        assert regions.overlaps.tolist() == pytest.approx(best, abs=1e-5)
        candidates = torch.cat((target.boxes, own)) if add_ground_truth else own
        assert torch.equal(candidates[regions.index], regions.boxes)


def test_regions_of_a_batch():
    boxes = [random_boxes(3, seed=0), random_boxes(0, seed=0), random_boxes(2, seed=1)]
    got = to_rois(boxes)
    assert got[:, 0].tolist() == [0, 0, 0, 2, 2]
    assert torch.equal(got[:, 1:], torch.cat(boxes))


def test_level_by_size():
    """Equation 1 of the paper: a region of 224 pixels is read from the third level, each half from the next finer."""
    sides = [1.0, 60, 111, 113, 200, 223, 225, 447, 449, 2000]
    rois = torch.tensor([[0.0, 5.0, 5.0, 5.0 + side, 5.0 + side] for side in sides])
    wanted = [min(max(math.floor(2 + math.log2(side / 224)), 0), 3) for side in sides]
    assert pyramid_levels(rois, 4).tolist() == wanted
    # Of a region turned inside out nothing is known: the finest level.
    assert pyramid_levels(torch.tensor([[0.0, 50.0, 50.0, 10.0, 60.0]]), 4).tolist() == [0]


def test_regions_keep_their_order():
    """Each region's features are those of its own level alone, whatever the others'."""
    features = [torch.full((2, 1, 512 // stride, 512 // stride), float(stride)) for stride in (4, 8, 16, 32)]
    features = [level + torch.tensor([0.0, 100.0]).view(2, 1, 1, 1) for level in features]
    rois = torch.tensor(
        [[1.0, 0, 0, 460, 460], [0.0, 0, 0, 30, 30], [1.0, 9, 9, 250, 250], [0.0, 0, 0, 120, 120], [1.0, 5, 5, 40, 40]]
    )
    got = roi_align_extractor(2)(features, rois)
    assert got[:, 0, 0, 0].tolist() == pytest.approx([132, 4, 116, 8, 104])
    assert got.flatten(1).std(dim=1).max() < 1e-4


def test_codes_of_a_label():
    codes = torch.arange(24.0).reshape(2, 12)
    assert by_class(codes, torch.tensor([2, 0])).tolist() == [[8, 9, 10, 11], [12, 13, 14, 15]]


@pytest.mark.parametrize("class_agnostic", [True, False])
def test_box_losses(class_agnostic):
    """Absolute differences of the codes of the object's class, at positives, over the number of all regions."""
    head, regions = small_head(class_agnostic=class_agnostic), sampled()
    _, _, targets = two_images()
    count = sum(len(own.boxes) for own in regions)
    logits, codes = torch.randn(count, 3), torch.randn(count, 4 if class_agnostic else 8)
    cls = reg = 0.0
    place = 0
    for own, target in zip(regions, targets, strict=True):
        for index, box in enumerate(own.boxes.tolist()):
            row, label = logits[place].tolist(), 2
            if index < len(own.matched):
                number = int(own.matched[index])
                label = int(target.labels[number])
                (px, py, pw, ph), (x, y, w, h) = centre_and_size(box), centre_and_size(target.boxes[number].tolist())
                wanted = (10 * (x - px) / pw, 10 * (y - py) / ph, 5 * math.log(w / pw), 5 * math.log(h / ph))
                code = codes[place] if class_agnostic else codes[place, 4 * label : 4 * label + 4]
                reg += sum(abs(c - t) for c, t in zip(code.tolist(), wanted, strict=True))
            cls += math.log(sum(map(math.exp, row))) - row[label]
            place += 1
    got = head.loss(logits, codes, regions)
    assert float(got["loss_cls"]) == pytest.approx(cls / count, rel=1e-4)
    assert float(got["loss_bbox"]) == pytest.approx(reg / count, rel=1e-4)
    assert region_labels(regions, 2).tolist() == [*regions[0].labels.tolist(), *[2] * (count - len(regions[0].labels))]


def test_box_losses_on_boxes():
    """A loss that compares boxes is given what the codes make of the regions."""
    head, regions = small_head(box_loss=GIoULoss()), sampled()
    count = sum(len(own.boxes) for own in regions)
    codes = torch.zeros(count, 8)
    for place, (box, wanted, label) in enumerate(
        zip(regions[0].positive_boxes, regions[0].matched_boxes, regions[0].labels.tolist(), strict=True)
    ):
        codes[place, 4 * label : 4 * label + 4] = head.coder.encode(box[None], wanted[None])
    loss = head.loss(torch.zeros(count, 3), codes, regions)["loss_bbox"]
    torch.testing.assert_close(loss, torch.tensor(0.0), rtol=0, atol=1e-4)


def test_box_losses_without_positives():
    head, regions = small_head(), sampled()[1:]
    codes = torch.randn(len(regions[0].boxes), 8, requires_grad=True)
    losses = head.loss(torch.zeros(len(codes), 3), codes, regions)
    losses["loss_bbox"].backward()
    assert float(losses["loss_bbox"].detach()) == 0
    assert codes.grad is not None
    nothing = sample_batch([torch.zeros(0, 4)], two_images()[2][1:], ASSIGN, RandomSampler())
    empty = head.loss(torch.zeros(0, 3), torch.zeros(0, 8), nothing)
    assert all(float(value) == 0 for value in empty.values())


def test_boxes_of_every_class():
    head, boxes, codes = small_head(), random_boxes(5, seed=0), torch.randn(5, 8)
    got = head.decode(boxes, codes, (70, 90))
    labels = torch.tensor([0, 1, 1, 0, 1])
    refined = head.refine(boxes, labels, codes, (70, 90))
    for region, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
        for column in range(2):
            code = codes[region, 4 * column : 4 * column + 4].tolist()
            (x, y, w, h) = centre_and_size(box)
            x, y, w, h = (
                x + w * code[0] / 10,
                y + h * code[1] / 10,
                w * math.exp(code[2] / 5),
                h * math.exp(code[3] / 5),
            )
            corners = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            wanted = [min(max(v, 0), limit) for v, limit in zip(corners, (90, 70) * 2, strict=True)]
            assert got[region, column].tolist() == pytest.approx(wanted, abs=1e-3)
        assert torch.equal(refined[region], got[region, label])


def test_regions_for_the_next_stage():
    """Objects are left out; background moves as its best class would, though it is none."""
    head, regions = small_head(), sampled()
    _, images, targets = two_images()
    count = sum(len(own.boxes) for own in regions)
    logits, codes = torch.randn(count, 3), torch.randn(count, 8)
    got = refined_regions(head, regions, logits, codes, images)
    place = 0
    for own, target, size, boxes in zip(regions, targets, images.sizes, got, strict=True):
        wanted = []
        for index, box in enumerate(own.boxes.tolist()):
            label = int(own.labels[index]) if index < len(own.matched) else int(logits[place, 1] > logits[place, 0])
            code = codes[place, 4 * label : 4 * label + 4].tolist()
            if box not in target.boxes.tolist():
                region = trained_on([box], [], 0.5)[0]
                wanted.append(moved(region, code, (0.1, 0.1, 0.2, 0.2), size))
            place += 1
        torch.testing.assert_close(boxes, torch.tensor(wanted), rtol=1e-4, atol=1e-3)


def test_mask_targets():
    """A rectangle cut to a box: the cells at least half of which it covers, by the four samples of each."""
    _, _, targets = two_images()
    got = mask_targets(sampled(), targets, 7)
    assert len(got) == len(sampled()[0].matched)
    inside = {0: (6, 10, 30, 38), 1: (50, 10, 90, 50)}
    near = 0
    for mask, box, number in zip(got, sampled()[0].positive_boxes.tolist(), sampled()[0].matched.tolist(), strict=True):
        x1, y1, x2, y2 = inside[number]
        for row in range(7):
            for column in range(7):
                left, top = box[0] + column * (box[2] - box[0]) / 7, box[1] + row * (box[3] - box[1]) / 7
                right, bottom = left + (box[2] - box[0]) / 7, top + (box[3] - box[1]) / 7
                across = max(min(right, x2) - max(left, x1), 0) / (right - left)
                down = max(min(bottom, y2) - max(top, y1), 0) / (bottom - top)
                # Samples between pixels blur the border by half a pixel: cells near one half may fall either way.
                if abs(across * down - 0.5) > 0.2:
                    assert float(mask[row, column]) == float(across * down > 0.5)
                else:
                    near += 1
    assert near < 0.2 * got.numel()


def test_mask_loss_without_positives():
    head = FCNMaskHead(num_classes=2, in_channels=4, channels=4)
    losses = head.loss(head(torch.zeros(0, 4, 7, 7)), sampled()[1:], two_images()[2][1:])
    losses["loss_mask"].backward()
    assert float(losses["loss_mask"].detach()) == 0
    assert all(parameter.grad is not None for parameter in head.parameters())
