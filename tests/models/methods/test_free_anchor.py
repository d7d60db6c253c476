"""The two bag losses, anchor by anchor."""

from __future__ import annotations

import math

import torch
from torchvision.ops import box_iou

from sdk.models.methods.free_anchor import FreeAnchorHead, mean_max, negative_log
from sdk.models.structures import ImageBatch, Targets


def by_hand(head, outputs, targets):
    """Both losses with loops over objects, anchors and classes, in double precision."""
    size = [(int(level.shape[2]), int(level.shape[3])) for level in outputs[0]]
    anchors = torch.cat(head.anchors(size, torch.device("cpu"))).double()
    positive, negative, count = 0.0, 0.0, sum(len(target) for target in targets)
    for index, target in enumerate(targets):
        logits, codes = (
            torch.cat([level[index].permute(1, 2, 0).reshape(-1, c) for level in kind]).double()
            for kind, c in zip(outputs, (head.num_classes, 4), strict=True)
        )
        scores, taken = logits.sigmoid(), torch.zeros_like(logits)
        boxes = head.coder.decode(anchors, codes)
        for box, label in zip(target.boxes.double(), target.labels.tolist(), strict=True):
            overlap = box_iou(box[None], boxes)[0]
            best = max(float(overlap.max()), 0.6 + 1e-12)
            taken[:, label] = torch.maximum(taken[:, label], ((overlap - 0.6) / (best - 0.6)).clamp(0, 1))
            bag = box_iou(box[None], anchors)[0].topk(50).indices
            above, below = 0.0, 0.0
            for anchor in bag.tolist():
                code = head.coder.encode(anchors[anchor : anchor + 1], box[None])[0].double()
                diff = (codes[anchor] - code).abs()
                distance = torch.where(diff < 0.11, diff**2 / 0.22, diff - 0.055).sum() * 0.75
                p = float(scores[anchor, label]) * math.exp(-float(distance))
                above, below = above + p / (1 - p), below + 1 / (1 - p)
            positive -= 0.5 * math.log(above / below)
        false = scores * (1 - taken)
        negative += float((-0.5 * false**2 * (1 - false).log()).sum())
    return positive / count, negative / (50 * count)


def test_losses():
    torch.manual_seed(0)
    head = FreeAnchorHead(num_classes=3)
    outputs = (
        [torch.randn(2, 27, s, s) for s in (8, 4, 2, 1, 1)],
        [torch.randn(2, 36, s, s) * 0.3 for s in (8, 4, 2, 1, 1)],
    )
    targets = [
        Targets(torch.tensor([[3.3, 4.1, 40.7, 50.9], [20.2, 8.6, 60.1, 30.3]]), torch.tensor([1, 1])),
        Targets(torch.tensor([[10.3, 9.1, 50.8, 60.6]]), torch.tensor([2])),
    ]
    images = ImageBatch(torch.zeros(2, 3, 64, 64), [(64, 64)] * 2)
    got = head.loss(outputs, images, targets)
    positive, negative = by_hand(head, outputs, targets)
    torch.testing.assert_close(got["positive_bag_loss"], torch.tensor(positive), rtol=1e-4, atol=0)
    torch.testing.assert_close(got["negative_bag_loss"], torch.tensor(negative), rtol=1e-3, atol=0)


def test_mean_max():
    low, high = torch.full((1, 50), 0.01), torch.full((1, 50), 0.01)
    high[0, 7] = 0.9999
    torch.testing.assert_close(mean_max(low), torch.tensor([0.01]))
    assert float(mean_max(high)) > 0.99


def test_saturated_probabilities():
    p = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    loss = negative_log(p)
    loss.sum().backward()
    torch.testing.assert_close(loss, torch.tensor([100.0, math.log(2), 0.0]), rtol=1e-3, atol=0)
    torch.testing.assert_close(p.grad, torch.tensor([0.0, -2.0, -1.0]))
