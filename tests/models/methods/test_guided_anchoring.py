"""Where guided anchors are learnt and placed, worked out location by location."""

from __future__ import annotations

import math

import torch

from sdk.models.assigners import BACKGROUND, IGNORED, MaxIoUAssigner
from sdk.models.assigners.approx_max_iou import ApproxMaxIoUAssigner
from sdk.models.assigners.region import RegionAssigner
from sdk.models.methods.guided_anchoring import GARPNHead
from sdk.models.structures import ImageBatch, Targets

STRIDES, SIZES = (4, 8, 16), ((32, 40), (16, 20), (8, 10))
BOXES = torch.tensor([[10.0, 12.0, 60.0, 50.0], [30.0, 20.0, 150.0, 125.0], [40.0, 20.0, 70.0, 48.0]])


def region(box, share, stride, size):
    cut = (1 - share) / 2
    x1, y1, x2, y2 = (float(v) / stride for v in box)
    low_x, low_y = round((1 - cut) * x1 + cut * x2), round((1 - cut) * y1 + cut * y2)
    high_x, high_y = round(cut * x1 + (1 - cut) * x2), round(cut * y1 + (1 - cut) * y2)
    return {(y, x) for y in range(size[0]) for x in range(size[1]) if low_x <= x <= high_x and low_y <= y <= high_y}


def regions_by_hand(neighbours_win):
    maps = [{(y, x): BACKGROUND for y in range(h) for x in range(w)} for h, w in SIZES]
    nearby = [set() for _ in SIZES]
    for number, box in enumerate(BOXES.tolist()):
        extent = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        own = min(max(math.floor(math.log2(extent / 32) + 0.5), 0), 2)
        for place in region(box, 0.5, STRIDES[own], SIZES[own]):
            maps[own][place] = IGNORED
        for place in region(box, 0.2, STRIDES[own], SIZES[own]):
            maps[own][place] = number
        for level in (own - 1, own + 1):
            if 0 <= level < 3:
                nearby[level] |= region(box, 0.5, STRIDES[level], SIZES[level])
    for level, places in enumerate(nearby):
        for place in places:
            if neighbours_win or maps[level][place] == BACKGROUND:
                maps[level][place] = IGNORED
    return [value for one in maps for value in one.values()]


def test_regions():
    for neighbours_win in (False, True):
        assigner = RegionAssigner(STRIDES, 8, neighbours_win=neighbours_win)
        assert assigner(SIZES, BOXES).matched.tolist() == regions_by_hand(neighbours_win)
        empty = assigner(SIZES, BOXES[:0]).matched
        assert len(empty) == sum(h * w for h, w in SIZES)
        assert (empty == BACKGROUND).all()


def test_a_location_takes_its_best_shape():
    shapes = torch.tensor(
        [
            [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 20.0, 10.0]],
            [[50.0, 50.0, 60.0, 60.0], [50.0, 50.0, 70.0, 60.0]],
            [[0.0, 0.0, 20.0, 10.0], [0.0, 0.0, 20.0, 10.0]],
        ]
    )
    assign = ApproxMaxIoUAssigner(MaxIoUAssigner(positive=0.7, negative=0.3, min_positive=0.3))
    usable = torch.tensor([True, True, False])
    found = assign(shapes, usable, torch.tensor([[0.0, 0.0, 20.0, 10.0]]))
    assert found.matched.tolist() == [0, BACKGROUND, IGNORED]
    assert found.overlaps.tolist() == [1.0, 0.0, 0.0]


def small_head():
    torch.manual_seed(0)
    return GARPNHead(channels=4)


def features(batch=2):
    return [torch.randn(batch, 4, 64 // 2**level, 64 // 2**level) for level in range(5)]


def test_images_without_objects():
    head = small_head()
    images = ImageBatch(torch.zeros(2, 3, 256, 256), [(256, 256), (200, 256)])
    empty = Targets(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    losses = head.loss(head(features()), images, [empty, empty])
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())


def test_proposals_of_a_batch_are_those_of_its_images():
    head = small_head().eval()
    torch.nn.init.normal_(head.conv_loc.weight, std=2.0)
    maps = features()
    pixels = torch.zeros(2, 3, 256, 256)
    with torch.no_grad():
        together = head.propose(head(maps), ImageBatch(pixels, [(256, 256), (200, 240)]))
        alone = head.propose(head([m[1:] for m in maps]), ImageBatch(pixels[1:], [(200, 240)]))[0]
    torch.testing.assert_close(together[1].boxes, alone.boxes)
    torch.testing.assert_close(together[1].scores, alone.scores)


def test_no_proposal_where_no_anchor_is_placed():
    head = small_head().eval()
    torch.nn.init.constant_(head.conv_loc.bias, -20.0)
    with torch.no_grad():
        found = head.propose(head(features(1)), ImageBatch(torch.zeros(1, 3, 256, 256), [(256, 256)]))
    assert len(found[0]) == 0
