"""One-to-one assignment against trying every assignment."""

from itertools import permutations

import pytest
import torch
from torchvision.ops import generalized_box_iou, sigmoid_focal_loss

from sdk.models.assigners.base import BACKGROUND
from sdk.models.assigners.hungarian import HungarianMatcher, focal_cost, softmax_cost
from sdk.models.boxes import xyxy_to_cxcywh
from sdk.models.structures import Targets


def random_boxes(count: int, size: float = 60.0) -> torch.Tensor:
    low = torch.rand(count, 2) * size
    return torch.cat((low, low + 4 + torch.rand(count, 2) * size / 2), dim=1)


def random_targets(*counts: int) -> list[Targets]:
    return [Targets(random_boxes(n), torch.randint(0, 3, (n,))) for n in counts]


def least_cost(cost: torch.Tensor) -> float:
    """The least sum over all ways to give every object (column) a query (row) of its own."""
    queries, objects = cost.shape
    return min(sum(float(cost[q, o]) for o, q in enumerate(chosen)) for chosen in permutations(range(queries), objects))


@pytest.mark.parametrize("kind", ["softmax", "focal"])
def test_least_cost_of_all_assignments(kind: str) -> None:
    torch.manual_seed(0)
    sizes = torch.tensor([[100.0, 80, 100, 80], [64, 96, 64, 96]])
    targets = random_targets(3, 2)
    boxes = torch.stack([torch.stack([random_boxes(5) for _ in range(2)]) for _ in range(2)])
    if kind == "softmax":
        logits = torch.randn(2, 2, 5, 4)
        matcher = HungarianMatcher(softmax_cost, xyxy_to_cxcywh, class_weight=1.0)
    else:
        logits = torch.randn(2, 2, 5, 3)
        matcher = HungarianMatcher(focal_cost, lambda b: b)
    matched = matcher(logits, boxes, sizes, targets)
    for depth in range(2):
        for image, target in enumerate(targets):
            own, size = boxes[depth, image], sizes[image]
            cost = torch.zeros(5, len(target))
            for q in range(5):
                for o in range(len(target)):
                    label = int(target.labels[o])
                    if kind == "softmax":
                        by_class = -logits[depth, image, q].softmax(0)[label]
                        shape = [torch.cat(((b[:2] + b[2:]) / 2, b[2:] - b[:2])) for b in (own[q], target.boxes[o])]
                    else:
                        one = logits[depth, image, q, label]
                        by_class = 2 * (
                            sigmoid_focal_loss(one, torch.tensor(1.0)) - sigmoid_focal_loss(one, torch.tensor(0.0))
                        )
                        shape = [own[q], target.boxes[o]]
                    giou = generalized_box_iou(own[q : q + 1], target.boxes[o : o + 1])[0, 0]
                    cost[q, o] = by_class + 5 * ((shape[0] - shape[1]) / size).abs().sum() - 2 * giou
            queries = (matched[depth, image] != BACKGROUND).nonzero()[:, 0]
            objects = matched[depth, image, queries]
            assert sorted(objects.tolist()) == list(range(len(target)))
            assert float(cost[queries, objects].sum()) == pytest.approx(least_cost(cost), abs=1e-4)


def test_batch_equals_single_images_and_empty_images() -> None:
    torch.manual_seed(1)
    matcher = HungarianMatcher(focal_cost, xyxy_to_cxcywh)
    targets = random_targets(4, 0, 2)
    logits, boxes = torch.randn(3, 3, 6, 3), torch.stack([torch.stack([random_boxes(6)] * 3)] * 3)
    sizes = torch.full((3, 4), 100.0)
    together = matcher(logits, boxes, sizes, targets)
    for image in range(3):
        part = slice(image, image + 1)
        alone = matcher(logits[:, part], boxes[:, part], sizes[part], targets[part])
        assert torch.equal(together[:, part], alone)
    assert bool((together[:, 1] == BACKGROUND).all())


def test_more_objects_than_queries() -> None:
    torch.manual_seed(2)
    matched = HungarianMatcher(focal_cost, xyxy_to_cxcywh)(
        torch.randn(1, 1, 2, 3), random_boxes(2)[None, None], torch.full((1, 4), 100.0), random_targets(5)
    )
    assert len(set(matched.flatten().tolist())) == 2
    assert bool((matched >= 0).all())


def test_predictions_that_are_no_numbers_do_not_stop_the_assignment() -> None:
    logits = torch.full((1, 1, 3, 3), torch.nan)
    matched = HungarianMatcher(focal_cost, xyxy_to_cxcywh)(
        logits, torch.full((1, 1, 3, 4), torch.nan), torch.full((1, 4), 100.0), random_targets(2)
    )
    assert int((matched != BACKGROUND).sum()) == 2
