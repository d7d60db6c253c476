"""Detections of a dense head, candidate by candidate."""

from __future__ import annotations

import torch
from torchvision.ops import box_iou

from sdk.models.boxes import clip_boxes
from sdk.models.dense.postprocess import dense_detections
from sdk.models.settings import DenseTest
from sdk.models.structures import ImageBatch


def by_hand(scores, codes, priors, size, scale, test, factors):
    """(box, score, label) of one image, best first."""
    candidates = []
    for level in range(len(priors)):
        pairs = [
            (float(scores[level][p, k]), p, k)
            for p in range(len(priors[level]))
            for k in range(scores[level].shape[1])
            if scores[level][p, k] > test.score_threshold
        ]
        for score, p, k in sorted(pairs, reverse=True)[: test.candidates_per_level]:
            box = clip_boxes(priors[level][p] + codes[level][p], size) / torch.tensor(scale * 2)
            candidates.append((score * float(factors[level][p]), k, box))
    candidates.sort(key=lambda one: -one[0])
    kept: list = []
    for score, label, box in candidates:
        rivals = [other for _, other_label, other in kept if other_label == label]
        if not rivals or float(box_iou(box[None], torch.stack(rivals)).max()) <= test.nms_threshold:
            kept.append((score, label, box))
    return kept[: test.max_per_image]


def test_batch_equals_each_image_by_hand():
    generator = torch.Generator().manual_seed(0)
    test = DenseTest(score_threshold=0.3, nms_threshold=0.5, max_per_image=15, candidates_per_level=30)
    counts = (40, 12)
    low = [torch.rand(n, 2, generator=generator) * 60 for n in counts]
    priors = [torch.cat((one, one + 25), dim=1) for one in low]
    scores = [torch.rand(2, n, 3, generator=generator) for n in counts]
    codes = [torch.randn(2, n, 4, generator=generator) * 3 for n in counts]
    factors = [torch.rand(2, n, generator=generator) for n in counts]
    images = ImageBatch(torch.zeros(2, 3, 96, 96), [(80, 70), (96, 60)], [(40, 70), (48, 60)], [(1.0, 2.0), (1.0, 2.0)])
    got = dense_detections(scores, codes, priors, lambda p, c, size: clip_boxes(p + c, size), images, test, factors)
    for index in range(2):
        wanted = by_hand(
            [level[index] for level in scores],
            [level[index] for level in codes],
            priors,
            images.sizes[index],
            images.scale(index),
            test,
            [level[index] for level in factors],
        )
        assert len(wanted) == 15
        assert got[index].labels.tolist() == [label for _, label, _ in wanted]
        torch.testing.assert_close(got[index].scores, torch.tensor([score for score, _, _ in wanted]))
        torch.testing.assert_close(got[index].boxes, torch.stack([box for _, _, box in wanted]))
