"""CentripetalNet: which corners agree on a centre, by loops, and boxes back from perfect maps."""

import pytest
import torch
from torchvision.ops import box_iou

from sdk.models.dense.corners import corner_targets, objects_on_map
from sdk.models.methods.centripetalnet import CentripetalHead, centres_agree
from sdk.models.settings import CornerTest
from sdk.models.structures import ImageBatch, Targets


def agrees(box: list[float], between: list[float], threshold: float) -> bool:
    """Section 4.1 for one pair: each centre inside the central region, and the area between them small."""
    x1, y1, x2, y2 = box
    share = 1 / 2.1 if (x2 - x1) * (y2 - y1) > 3500 else 1 / 2.4
    mx, my, w, h = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) * share, (y2 - y1) * share
    for x, y in (between[:2], between[2:]):
        if not (mx - w / 2 < x < mx + w / 2 and my - h / 2 < y < my + h / 2):
            return False
    area = abs((between[2] - between[0]) * (between[3] - between[1]))
    return area / (w * h) <= threshold


def test_centres_agree_by_loops() -> None:
    torch.manual_seed(0)
    low = torch.rand(400, 2) * 50
    boxes = torch.cat((low, low + 2 + torch.rand(400, 2) * 120), dim=1)
    size = boxes[:, 2:] - boxes[:, :2]
    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2).repeat(1, 2)
    between = centre + (torch.rand(400, 4) - 0.5) * size.repeat(1, 2) * 0.5
    for threshold in (0.05, 0.5):
        got = centres_agree(boxes, between, threshold)
        want = [agrees(b, c, threshold) for b, c in zip(boxes.tolist(), between.tolist())]
        assert got.tolist() == want
        assert 0 < sum(want) < 400


def perfect_maps(targets: list[Targets], images: ImageBatch) -> tuple[list[torch.Tensor], ...]:
    """What a head without fault would say."""
    objects = objects_on_map(targets, images, (32, 32))
    wanted = corner_targets(objects, (len(targets), 2, 32, 32))
    boxes = objects.boxes
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    kinds: list[list[list[torch.Tensor]]] = [[], [], [], []]
    for sign, t in zip((1, -1), wanted):
        place = torch.stack((t.x, t.y), dim=1)
        kinds[0].append([torch.where(t.heat == 1, 4.0, -4.0)])
        for kind, values in zip(kinds[1:], (t.point - place, sign * (centre - place), half.log())):
            filled = torch.zeros(len(targets), 2, 32, 32)
            filled[objects.image, :, t.y, t.x] = values
            kind.append([filled])
    return tuple(each for kind in kinds for each in kind)


def test_boxes_come_back_from_perfect_maps() -> None:
    boxes = torch.tensor([[10.0, 9, 50, 40], [60, 70, 120, 126], [11, 72, 40, 100]])
    targets = [Targets(boxes, torch.tensor([0, 1, 1])), Targets(boxes[:1] + 7, torch.tensor([1]))]
    images = ImageBatch(torch.zeros(2, 3, 128, 128), [(128, 128)] * 2)
    head = CentripetalHead(num_classes=2, levels=1, channels=8)
    maps = perfect_maps(targets, images)
    for detections, target in zip(head.predict(maps, images, CornerTest(score_threshold=0.5)), targets):
        assert len(detections) == len(target)
        best = box_iou(target.boxes, detections.boxes).max(dim=1)
        torch.testing.assert_close(best.values, torch.ones(len(target)), rtol=1e-4, atol=1e-4)
        assert torch.equal(detections.labels[best.indices], target.labels)
    losses = head.loss(maps, images, targets)
    for name in ("off_loss", "guiding_loss", "centripetal_loss"):
        assert float(losses[name]) == pytest.approx(0, abs=1e-6)


def test_losses_without_objects_reach_every_parameter() -> None:
    torch.manual_seed(0)
    head = CentripetalHead(num_classes=2, levels=2, channels=8)
    images = ImageBatch(torch.zeros(2, 3, 32, 32), [(32, 32)] * 2)
    empty = [Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))] * 2
    losses = head.loss(head([torch.randn(2, 8, 8, 8)] * 2), images, empty)
    assert all(bool(value.isfinite()) for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, p in head.named_parameters() if p.grad is None] == []
