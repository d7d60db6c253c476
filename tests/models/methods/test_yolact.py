"""YOLACT: suppression, cut masks and losses, pixel by pixel.

Shape letters: B images, P anchors, K classes, M prototypes, h x w pixels of the prototypes.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from plain_boxes import iou, random_boxes

from sdk.models.backbones.resnet import ResNet
from sdk.models.dense.anchor_targets import AnchorTargets
from sdk.models.dense.head import all_by_prior
from sdk.models.methods import yolact
from sdk.models.methods.yolact import (
    PROTOTYPES,
    YOLACT,
    Protonet,
    SegmentationHead,
    YOLACTHead,
    YolactTest,
    cut_to_boxes,
    fast_nms,
)
from sdk.models.necks.fpn import FPN
from sdk.models.structures import ImageBatch, Targets


def suppressed_by_hand(boxes, scores, test):
    """(score, label, anchor) of what is left, best first."""
    found = []
    for label in range(scores.shape[1]):
        order = sorted(range(len(boxes)), key=lambda i: -scores[i, label])[: test.top_per_class]
        for place, index in enumerate(order):
            hidden = any(iou(boxes[index], boxes[better]) > test.nms_threshold for better in order[:place])
            if scores[index, label] > test.score_threshold and not hidden:
                found.append((float(scores[index, label]), label, index))
    return sorted(found, reverse=True)[: test.max_per_image]


@pytest.mark.parametrize("most", [5, 100])
def test_fast_nms(most):
    boxes = random_boxes(60, seed=0, extent=40)
    scores = torch.rand(60, 3, generator=torch.Generator().manual_seed(1))
    scores[:, 2] *= 0.04
    coefficients = torch.arange(60.0)[:, None].expand(-1, PROTOTYPES)
    test = YolactTest(top_per_class=40, max_per_image=most)
    found, kept = fast_nms(boxes, scores, coefficients, test)
    wanted = suppressed_by_hand(boxes.tolist(), scores.numpy(), test)
    assert len(wanted) >= 5
    assert kept[:, 0].int().tolist() == [index for _, _, index in wanted]
    assert found.labels.tolist() == [label for _, label, _ in wanted]
    assert found.scores.tolist() == [score for score, _, _ in wanted]
    assert torch.equal(found.boxes, boxes[[index for _, _, index in wanted]])


def test_a_suppressed_box_suppresses():
    """The third box overlaps only the second, which the first suppresses: it goes, unlike in plain NMS."""
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [3.0, 0.0, 13.0, 10.0], [6.0, 0.0, 16.0, 10.0]])
    scores = torch.tensor([[0.9], [0.8], [0.7]])
    found, _ = fast_nms(boxes, scores, torch.zeros(3, PROTOTYPES), YolactTest())
    assert found.boxes.tolist() == boxes[:1].tolist()


def test_nothing_above_the_threshold():
    found, kept = fast_nms(random_boxes(4, seed=0), torch.full((4, 2), 0.01), torch.zeros(4, PROTOTYPES), YolactTest())
    assert (len(found), kept.shape) == (0, (0, PROTOTYPES))


def inside_by_hand(box, height, width):
    """Which pixels lie in a box of shares of the image, or within a pixel of it."""
    x1, x2 = sorted((box[0] * width, box[2] * width))
    y1, y2 = sorted((box[1] * height, box[3] * height))
    kept = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            kept[y, x] = x1 - 1 <= x < x2 + 1 and y1 - 1 <= y < y2 + 1
    return kept


def test_masks_are_cut_to_their_boxes():
    masks = torch.rand(6, 9, 12) + 0.1
    boxes = random_boxes(6, seed=2, extent=0.8, least=0.1, most=0.5)
    boxes[3] = torch.tensor([0.7, 0.6, 0.2, 0.1])
    boxes[4] = torch.tensor([-0.5, -0.2, 0.3, 1.4])
    wanted = np.stack([inside_by_hand(box, 9, 12) for box in boxes.tolist()]) * masks.numpy()
    torch.testing.assert_close(cut_to_boxes(masks, boxes), torch.from_numpy(wanted).float(), rtol=0, atol=0)


def shrunk(mask):
    """(2 h, 2 w) to (h, w): one where more than half of four pixels are."""
    return np.float64((mask[0::2, 0::2] + mask[1::2, 0::2] + mask[0::2, 1::2] + mask[1::2, 1::2]) / 4 > 0.5)


def cross_entropy(p, t):
    """As torch has it, the logarithm of zero is -100."""
    log = [max(math.log(value), -100.0) if value > 0 else -100.0 for value in (p, 1 - p)]
    return -t * log[0] - (1 - t) * log[1]


def two_images():
    """One image of 16 x 20 with three positive anchors for two objects, and one smaller image without any."""
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(2, 16, 20, generator=generator) > 0.4).to(torch.uint8)
    objects = Targets(torch.tensor([[2.0, 3.0, 12.0, 13.0], [5.0, 1.0, 19.0, 9.0]]), torch.tensor([0, 2]), masks=masks)
    empty = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), masks=torch.zeros(0, 16, 20))
    matched = torch.tensor([[-1, 1, 0, -1, 1], [-1] * 5])
    wanted = AnchorTargets(
        labels=torch.tensor([[3, 2, 0, 3, 2], [3] * 5]),
        label_weights=torch.ones(2, 5),
        codes=torch.zeros(2, 5, 4),
        positive=matched >= 0,
        matched=matched,
        positives=4,
        negatives=7,
    )
    images = ImageBatch(torch.zeros(2, 3, 16, 20), [(16, 20), (14, 18)])
    return images, [objects, empty], wanted


@pytest.mark.parametrize("most", [2, 100])
def test_mask_loss(most, monkeypatch):
    monkeypatch.setattr(yolact, "random_choice", lambda candidates, count: candidates[:count])
    images, targets, wanted = two_images()
    torch.manual_seed(1)
    prototypes, coefficients = torch.randn(2, PROTOTYPES, 8, 10).relu(), torch.randn(2, 5, PROTOTYPES).tanh() / 3
    head = Protonet(channels=4)
    head.most = most
    total = []
    for anchor, number in [(1, 1), (2, 0), (4, 1)][:most]:
        logits = np.tensordot(coefficients[0, anchor].numpy(), prototypes[0].numpy(), axes=1)
        x1, y1, x2, y2 = targets[0].boxes[number].tolist()
        mask = inside_by_hand((x1 / 20, y1 / 16, x2 / 20, y2 / 16), 8, 10) / (1 + np.exp(-logits))
        truth = shrunk(targets[0].masks[number].numpy())
        terms = [cross_entropy(p, t) for p, t in zip(mask.ravel(), truth.ravel(), strict=True)]
        total.append(6.125 * np.mean(terms) / ((x2 - x1) / 20) / ((y2 - y1) / 16))
    got = head.loss(prototypes, coefficients, wanted, images, targets)
    torch.testing.assert_close(got, torch.tensor(np.mean(total), dtype=torch.float32), rtol=1e-5, atol=0)


def test_semantic_loss_of_moved_classes():
    _, targets, _ = two_images()
    torch.manual_seed(1)
    logits, total = torch.randn(2, 3, 8, 10), 0.0
    masks = targets[0].masks.numpy()
    # The objects' classes are 0 and 2; the channels say 1 to 3, and 0 is called 3.
    channels = {2: shrunk(masks[0]), 1: shrunk(masks[1])}
    for channel in range(3):
        truth = np.stack((channels.get(channel, np.zeros((8, 10))), np.zeros((8, 10))))
        p = 1 / (1 + np.exp(-logits[:, channel].double().numpy()))
        total -= (truth * np.log(p) + (1 - truth) * np.log(1 - p)).sum()
    got = SegmentationHead(num_classes=3, channels=4).loss(logits, targets)
    torch.testing.assert_close(got, torch.tensor(total / (2 * 8 * 10), dtype=torch.float32), rtol=1e-5, atol=0)


def test_objects_of_one_class_are_joined():
    masks = torch.zeros(2, 4, 4)
    masks[0, :, :2], masks[1, :2] = 1, 1
    target = Targets(torch.tensor([[0.0, 0.0, 2.0, 4.0], [0.0, 0.0, 4.0, 2.0]]), torch.tensor([1, 1]), masks=masks)
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    SegmentationHead(num_classes=2, channels=4).loss(logits, [target]).backward()
    # The gradient at zero is half a pixel's share, downwards where the object is.
    assert torch.equal(logits.grad.sign(), torch.tensor([[[[-1.0, -1.0], [-1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]]]))


def test_batch_without_objects():
    """Every anchor is a negative and counts; masks and boxes add nothing, and yet reach every parameter."""
    torch.manual_seed(0)
    head, protonet = YOLACTHead(num_classes=3, channels=8), Protonet(channels=8)
    maps = [torch.randn(1, 8, size, size) for size in (4, 2, 1, 1, 1)]
    images = ImageBatch(torch.zeros(1, 3, 32, 32), [(32, 32)])
    empty = [Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), masks=torch.zeros(0, 32, 32))]
    outputs = head(maps)
    wanted = head.targets(outputs, images, empty)
    losses = head.loss(outputs, wanted)
    total = 0.0
    for level in outputs[0]:
        for logits in level[0].detach().double().numpy().reshape(3, 4, -1).transpose(0, 2, 1).reshape(-1, 4):
            total += math.log(np.exp(logits).sum()) - logits[3]
    torch.testing.assert_close(float(losses["loss_cls"].detach()), float(total), rtol=1e-5, atol=0)
    assert float(losses["loss_bbox"].detach()) == 0
    coefficients = all_by_prior(outputs[2], PROTOTYPES)
    mask_loss = protonet.loss(protonet(maps[0]), coefficients, wanted, images, empty)
    assert float(mask_loss.detach()) == 0
    (sum(losses.values()) + mask_loss).backward()
    for parameter in (*head.parameters(), *protonet.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_nothing_found():
    detector = YOLACT(
        backbone=ResNet(18, base_channels=16), neck=FPN((16, 32, 64, 128), start=1, extra="input"), num_classes=2
    )
    detector.test.score_threshold = 1.0
    images = ImageBatch(torch.zeros(1, 3, 64, 64), [(64, 64)], [(32, 48)], [(48 / 64, 32 / 64)])
    with torch.no_grad():
        (found,) = detector.eval().predict(images)
    assert found.masks is not None
    assert found.masks.shape == (0, 32, 48)
