"""What anchors should predict, and the losses of it, anchor by anchor.

Shape letters: B images, P anchors, K classes.
"""

from __future__ import annotations

import pytest
import torch
from plain_boxes import giou, iou

from sdk.models.assigners import BACKGROUND, MaxIoUAssigner
from sdk.models.coders import DeltaCoder
from sdk.models.dense.anchor_targets import anchor_losses, anchor_targets, batch_objects, inside_image
from sdk.models.losses import CrossEntropy, GIoULoss, L1Loss
from sdk.models.priors import anchor_grid
from sdk.models.samplers import AllSampler
from sdk.models.structures import ImageBatch, Targets

SIZES = [(4, 5), (2, 3)]
GRID = anchor_grid((16, 32), scales=(1.5,), ratios=(0.5, 2.0))
# The first image is smaller than the batch; cells beyond 64 x 80 lie outside even of its padding.
IMAGES = ImageBatch(torch.zeros(2, 3, 64, 80), [(50, 60), (64, 80)])
BOXES = torch.tensor([[4.0, 6.0, 38.0, 24.0], [20.0, 10.0, 50.0, 50.0]])
TARGETS = [Targets(BOXES, torch.tensor([2, 0])), Targets(BOXES[:0], torch.zeros(0, dtype=torch.int64))]
CODER = DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2))


def made(box_loss, border):
    return anchor_targets(
        GRID,
        SIZES,
        IMAGES,
        TARGETS,
        num_classes=3,
        assign=MaxIoUAssigner(positive=0.5, negative=0.3),
        sampler=AllSampler(),
        coder=CODER,
        box_loss=box_loss,
        border=border,
    )


def usable_by_hand(border):
    """Of each image and anchor: its cell begins in the batch and, where ``border`` is not negative, it lies in the
    image or at most so far outside."""
    found = []
    for height, width in IMAGES.sizes:
        flags = []
        for (rows, columns), stride, bases in zip(SIZES, (16, 32), GRID.bases, strict=True):
            for row in range(rows):
                for column in range(columns):
                    for base in bases.tolist():
                        x1, y1, x2, y2 = (v + o for v, o in zip(base, (column * stride, row * stride) * 2, strict=True))
                        inside = min(x1, y1) >= -border and x2 < width + border and y2 < height + border
                        flags.append(row * stride < 64 and column * stride < 80 and (border < 0 or inside))
        found.append(flags)
    return found


@pytest.mark.parametrize("border", [-1, 0, 8])
def test_targets(border):
    anchors, got = made(L1Loss(), border)
    usable = usable_by_hand(border)
    assert got.positives == max(int(got.positive[0].sum()), 1) + 1
    for image, target in enumerate(TARGETS):
        # Objects take the best of the anchors that take part, however poor.
        best = [
            max(iou(a, box) for a, use in zip(anchors.tolist(), usable[image], strict=True) if use)
            for box in target.boxes.tolist()
        ]
        for index, anchor in enumerate(anchors.tolist()):
            overlaps = [iou(anchor, box) for box in target.boxes.tolist()]
            number = None
            if overlaps and max(overlaps) >= 0.5:
                number = overlaps.index(max(overlaps))
            for own, overlap in enumerate(overlaps):
                if overlap == best[own]:
                    number = own
            counts = usable[image][index] and (number is not None or max(overlaps, default=0.0) < 0.3)
            positive = usable[image][index] and number is not None
            assert bool(got.positive[image, index]) == positive
            assert float(got.label_weights[image, index]) == counts
            assert int(got.labels[image, index]) == (int(target.labels[number]) if positive else 3)
            assert int(got.matched[image, index]) == (number if positive else BACKGROUND)
            wanted = CODER.encode(anchors[index, None], target.boxes[number, None])[0] if positive else torch.zeros(4)
            torch.testing.assert_close(got.codes[image, index], wanted)
    assert got.positive[0].any()


def test_boxes_are_wanted_by_losses_on_boxes():
    _, got = made(GIoULoss(), -1)
    assert torch.equal(got.codes[got.positive], BOXES[got.matched[got.positive]])


def test_border():
    anchors = torch.tensor([[0.0, 0.0, 9.0, 7.0], [-3.0, 0.0, 9.0, 7.0], [0.0, 0.0, 13.0, 7.0], [0.0, 0.0, 9.0, 11.0]])
    assert inside_image(anchors, (8, 10), 0).tolist() == [True, False, False, False]
    assert inside_image(anchors, (8, 10), 3.5).tolist() == [True] * 4
    assert inside_image(anchors, (8, 10), 3).tolist() == [True, True, False, False]
    assert inside_image(anchors, (8, 10), -1).all()


@pytest.mark.parametrize("box_loss", [L1Loss(), GIoULoss()])
def test_losses(box_loss):
    torch.manual_seed(0)
    anchors, wanted = made(box_loss, -1)
    logits, codes = torch.randn(2, len(anchors), 4), 0.3 * torch.randn(2, len(anchors), 4)
    got = anchor_losses(
        logits, codes, anchors, wanted, class_loss=CrossEntropy(), box_loss=box_loss, coder=CODER, normalizer=5.0
    )
    cls = reg = 0.0
    for image in range(2):
        for index in range(len(anchors)):
            row, label = logits[image, index].double(), int(wanted.labels[image, index])
            cls += float(wanted.label_weights[image, index] * (row.exp().sum().log() - row[label]))
            if not wanted.positive[image, index]:
                continue
            if box_loss.on_boxes:
                box = CODER.decode(anchors[index], codes[image, index])
                reg += 1 - giou(box.tolist(), wanted.codes[image, index].tolist())
            else:
                reg += float((codes[image, index] - wanted.codes[image, index]).abs().sum())
    assert [float(value) for value in got] == pytest.approx([cls / 5, reg / 5], rel=1e-4)


def test_objects_of_a_batch():
    assign = MaxIoUAssigner(positive=0.5, negative=0.3)
    anchors = torch.cat(GRID(SIZES, torch.device("cpu")))
    each = [assign(anchors, target.boxes) for target in TARGETS]
    labels, boxes = batch_objects(each, TARGETS, 3)
    for image, target in enumerate(TARGETS):
        for index, number in enumerate(each[image].matched.tolist()):
            assert int(labels[image, index]) == (int(target.labels[number]) if number >= 0 else 3)
            assert boxes[image, index].tolist() == (target.boxes[number].tolist() if number >= 0 else [0.0] * 4)
