"""YOLOv3: cells, codes, losses and scores, anchor by anchor.

Shape letters: B images, H x W cells of a level, A anchors of a cell, K classes.
"""

from __future__ import annotations

import math

import pytest
import torch
from plain_boxes import centre_and_size, iou, random_boxes

from sdk.models.methods.yolov3 import (
    YoloTest,
    YOLOV3Head,
    decode,
    encode,
    level_strides,
    responsible_anchors,
    yolo_anchors,
)
from sdk.models.structures import ImageBatch, Targets

SIZES = [(3, 4), (6, 8), (12, 16)]
# Section 2.3: nine clusters, three for each scale, the largest on the coarsest map.
CLUSTERS = {
    32: [(116, 90), (156, 198), (373, 326)],
    16: [(30, 61), (62, 45), (59, 119)],
    8: [(10, 13), (16, 30), (33, 23)],
}


def anchors_by_hand():
    """(stride, column, row, width, height) of each anchor in the order of the maps."""
    found = []
    for (height, width), (stride, clusters) in zip(SIZES, CLUSTERS.items(), strict=True):
        for row in range(height):
            for column in range(width):
                found += [(stride, column, row, *cluster) for cluster in clusters]
    return found


def anchor_box(anchor):
    stride, column, row, width, height = anchor
    x, y = (column + 0.5) * stride, (row + 0.5) * stride
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def cell_of(box, stride, size):
    """Column and row of the cell with the box's centre; those of the last cell where it lies on the border."""
    x, y, _, _ = centre_and_size(box)
    return min(int(x // stride), size[1] - 1), min(int(y // stride), size[0] - 1)


def responsible_by_hand(boxes):
    sizes = dict(zip(CLUSTERS, SIZES, strict=True))
    return [
        any(cell_of(box, stride, sizes[stride]) == (column, row) for box in boxes)
        for stride, column, row, _, _ in anchors_by_hand()
    ]


def test_anchors():
    got = torch.cat(yolo_anchors()(SIZES, torch.device("cpu")))
    torch.testing.assert_close(got, torch.tensor([anchor_box(a) for a in anchors_by_hand()]))


def test_cells_of_centres():
    boxes = random_boxes(6, seed=0, extent=70, least=5, most=30)
    # The centre of the last box lies on the lower right corner of the image, that is beyond the last cell.
    boxes[-1] = torch.tensor([120.0, 90.0, 136.0, 102.0])
    got = responsible_anchors(yolo_anchors(), SIZES, boxes)
    assert got.tolist() == responsible_by_hand(boxes.tolist())
    assert got[-3:].all()
    assert not responsible_anchors(yolo_anchors(), SIZES, torch.zeros(0, 4)).any()


def test_codes_are_those_of_the_paper():
    """Figure 2: the centre is a sigmoid's share of the cell, the sides are exponentials of the anchor's."""
    torch.manual_seed(0)
    anchors = torch.cat(yolo_anchors()(SIZES, torch.device("cpu")))
    codes = torch.cat((torch.rand(len(anchors), 2) * 0.9 + 0.05, torch.randn(len(anchors), 2)), dim=1)
    wanted = []
    for (stride, column, row, width, height), (sx, sy, tw, th) in zip(anchors_by_hand(), codes.tolist(), strict=True):
        x, y, w, h = (column + sx) * stride, (row + sy) * stride, width * math.exp(tw), height * math.exp(th)
        wanted.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    strides = torch.tensor([anchor[0] for anchor in anchors_by_hand()]).float()
    boxes = decode(anchors, codes, strides)
    torch.testing.assert_close(boxes, torch.tensor(wanted), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(encode(anchors, boxes, strides), codes, rtol=1e-3, atol=1e-4)


def test_codes_stay_finite_on_the_border():
    """A centre on the edge of its cell, and an object without extent, have targets that a sigmoid can reach."""
    anchor = torch.tensor([[0.0, 0.0, 32.0, 32.0]])
    boxes = torch.tensor([[16.0, 28.0, 48.0, 36.0], [-10.0, -10.0, 10.0, 10.0], [8.0, 8.0, 8.0, 8.0]])
    codes = encode(anchor.expand(3, 4), boxes, torch.full((3,), 32.0))
    assert codes.isfinite().all()
    assert bool(((codes[:, :2] > 0) & (codes[:, :2] < 1)).all())


def softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def cross_entropy(logit, target):
    return softplus(logit) - target * logit


def losses_by_hand(pred, boxes, labels, classes):
    """Sums over the anchors of one image; pred: five numbers and the classes' logits of each anchor."""
    anchors = anchors_by_hand()
    total = {"loss_cls": 0.0, "loss_conf": 0.0, "loss_xy": 0.0, "loss_wh": 0.0}
    overlaps = [[iou(anchor_box(anchor), box) for box in boxes] for anchor in anchors]
    owner = [None] * len(anchors)
    responsible = responsible_by_hand(boxes)
    for index, own in enumerate(overlaps):
        if responsible[index] and max(own) > 0.5:
            owner[index] = own.index(max(own))
    for number in range(len(boxes)):
        column = [own[number] if flag else -1.0 for own, flag in zip(overlaps, responsible, strict=True)]
        owner[column.index(max(column))] = number
    for index, (stride, column, row, width, height) in enumerate(anchors):
        values, number = pred[index], owner[index]
        if number is None:
            if max(overlaps[index], default=0.0) <= 0.5:
                total["loss_conf"] += cross_entropy(values[4], 0)
            continue
        x, y, w, h = centre_and_size(boxes[number])
        total["loss_conf"] += cross_entropy(values[4], 1)
        total["loss_xy"] += 2 * cross_entropy(values[0], x / stride - column)
        total["loss_xy"] += 2 * cross_entropy(values[1], y / stride - row)
        total["loss_wh"] += 2 * (values[2] - math.log(w / width)) ** 2 + 2 * (values[3] - math.log(h / height)) ** 2
        for label in range(classes):
            total["loss_cls"] += cross_entropy(values[5 + label], float(label == labels[number]))
    return total


def tiny_head():
    """A head of two classes, and what it says of two images of 96 x 128: each level's (B, A (5 + K), H, W) map."""
    torch.manual_seed(0)
    head = YOLOV3Head(num_classes=2, in_channels=(2, 2, 2))
    maps = [torch.randn(2, 21, *size, requires_grad=True) for size in SIZES]
    preds = torch.cat([m.permute(0, 2, 3, 1).reshape(2, -1, 7) for m in maps], dim=1).detach()
    return head, maps, preds


def test_losses():
    head, maps, preds = tiny_head()
    boxes = torch.tensor([[10.0, 12.0, 45.0, 70.0], [60.0, 20.0, 122.0, 66.0], [100.0, 70.0, 110.0, 84.0]])
    labels = torch.tensor([1, 0, 1])
    images = ImageBatch(torch.zeros(2, 3, 96, 128), [(96, 128)] * 2)
    targets = [Targets(boxes, labels), Targets(boxes[:0], labels[:0])]
    got = head.loss((maps,), images, targets)
    parts = [
        losses_by_hand(pred, own.boxes.tolist(), own.labels.tolist(), 2)
        for pred, own in zip(preds.tolist(), targets, strict=True)
    ]
    assert parts[1]["loss_wh"] == 0
    for name, value in got.items():
        assert float(value.detach()) == pytest.approx(sum(part[name] for part in parts), rel=1e-4)
    # Without objects only the objectness learns.
    sum(got.values()).backward()
    gradient = maps[2].grad[1].view(3, 7, *SIZES[2]).abs().sum(dim=(0, 2, 3))
    assert (gradient > 0).tolist() == [False] * 4 + [True] + [False] * 2


def test_scores_are_objectness_times_class():
    head, maps, preds = tiny_head()
    test = YoloTest(nms_threshold=1.0, objectness_threshold=0.6, score_threshold=0.3, max_per_image=10_000)
    images = ImageBatch(torch.zeros(2, 3, 96, 128), [(96, 128)] * 2)
    anchors = yolo_anchors()(SIZES, torch.device("cpu"))
    for found, pred in zip(head.predict((maps,), images, test), preds, strict=True):
        wanted = []
        for index, values in enumerate(pred.sigmoid().tolist()):
            wanted += [
                (values[4] * values[5 + label], label, index)
                for label in range(2)
                if values[4] >= 0.6 and values[5 + label] > 0.3
            ]
        wanted.sort(reverse=True)
        torch.testing.assert_close(found.scores.detach(), torch.tensor([score for score, _, _ in wanted]))
        assert found.labels.tolist() == [label for _, label, _ in wanted]
        index = torch.tensor([index for _, _, index in wanted])
        codes = torch.cat((pred[:, :2].sigmoid(), pred[:, 2:4]), dim=1)
        boxes = decode(torch.cat(anchors)[index], codes[index], level_strides(anchors)[index])
        torch.testing.assert_close(found.boxes.detach(), boxes)
