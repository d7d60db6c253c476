"""Corners: targets, losses and pairing against plain loops, and boxes back from perfect maps."""

import math

import pytest
import torch
from torchvision.ops import box_iou

from sdk.models.dense.corners import (
    Objects,
    corner_targets,
    gaussian_radius,
    heat_loss,
    objects_on_map,
    offset_loss,
)
from sdk.models.detectors.single_stage import SingleStageDetector
from sdk.models.losses.corners import AssociativeEmbeddingLoss, GaussianFocalLoss
from sdk.models.methods.cornernet import CornerHead
from sdk.models.settings import CornerTest
from sdk.models.structures import ImageBatch, Targets
from sdk.models.tta import predict_views


@pytest.mark.parametrize("size", [(20.0, 30.0), (7.0, 7.0), (3.0, 90.0)])
def test_radius_is_the_largest_shift_that_still_overlaps(size: tuple[float, float]) -> None:
    radius = float(gaussian_radius(torch.tensor([size]), 0.3))
    box = torch.tensor([[0.0, 0, *size]])

    def least_overlap(shift: float) -> float:
        moves = torch.tensor([[1.0, 1, 1, 1], [1, 1, -1, -1], [-1, -1, 1, 1]]) * shift
        return float(box_iou(box, box + moves).min())

    assert least_overlap(radius - 1e-3) > 0.3 > least_overlap(radius + 1e-3)


def batch_of(targets: list[Targets]) -> ImageBatch:
    return ImageBatch(torch.zeros(len(targets), 3, 64, 96), [(64, 96)] * len(targets))


def some_targets() -> list[Targets]:
    boxes = torch.tensor([[10.0, 9, 50, 40], [12.3, 20, 30, 50], [60, 5, 95.9, 63.9]])
    return [
        Targets(boxes, torch.tensor([0, 1, 0])),
        Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
        Targets(boxes[1:2], torch.tensor([1])),
    ]


def test_targets_by_loops() -> None:
    targets = some_targets()
    images = batch_of(targets)
    objects = objects_on_map(targets, images, (16, 24))
    got = corner_targets(objects, (3, 2, 16, 24))
    number = 0
    want = [torch.zeros(3, 2, 16, 24), torch.zeros(3, 2, 16, 24)]
    for image, target in enumerate(targets):
        for box, label in zip(target.boxes / 4, target.labels):
            size = (box[2:] - box[:2]).ceil()
            radius = int(gaussian_radius(size[None], 0.3))
            for corner, heat in enumerate(want):
                exact = box[2 * corner : 2 * corner + 2]
                x, y = min(int(exact[0]), 23), min(int(exact[1]), 15)
                assert (int(got[corner].x[number]), int(got[corner].y[number])) == (x, y)
                torch.testing.assert_close(got[corner].point[number], exact)
                for row in range(max(0, y - radius), min(16, y + radius + 1)):
                    for column in range(max(0, x - radius), min(24, x + radius + 1)):
                        distance = (row - y) ** 2 + (column - x) ** 2
                        value = math.exp(-distance / (2 * ((2 * radius + 1) / 6) ** 2))
                        heat[image, label, row, column] = max(float(heat[image, label, row, column]), value)
            number += 1
    for corner in range(2):
        torch.testing.assert_close(got[corner].heat, want[corner])
        assert sorted(got[corner].owner.tolist()) == [0, 1, 2, 3]


def test_the_last_object_owns_a_shared_corner() -> None:
    boxes = torch.tensor([[4.2, 4.2, 10, 10], [4.6, 4.7, 12, 9], [1, 1, 3, 3]])
    objects = Objects(torch.zeros(3, dtype=torch.int64), torch.tensor([0, 1, 0]), boxes)
    tl, br = corner_targets(objects, (1, 2, 16, 16))
    assert tl.owner.tolist() == [2, 1]
    assert sorted(br.owner.tolist()) == [0, 1, 2]
    offsets = torch.zeros(1, 2, 16, 16)
    offsets[0, :, 4, 4] = torch.tensor([0.6, 0.7])
    assert float(offset_loss((offsets, offsets), objects, (tl, br))) == pytest.approx(0, abs=1e-5)


def test_focal_loss_by_hand() -> None:
    p = torch.tensor([0.7, 0.2, 0.9]).reshape(1, 1, 1, 3)
    targets = torch.tensor([1.0, 0.5, 0.0]).reshape(1, 1, 1, 3)
    want = -math.log(0.7) * 0.3**2 - math.log(0.8) * 0.2**2 * 0.5**4 - math.log(0.1) * 0.9**2
    assert float(GaussianFocalLoss()(p.logit(), targets, 2.0)) == pytest.approx(want / 2, rel=1e-5)


def test_embeddings_pull_and_push_by_loops() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(6), torch.randn(6)
    image = torch.tensor([0, 0, 0, 2, 2, 3])
    pull = push = 0.0
    for number in range(4):
        own = [i for i in range(6) if image[i] == number]
        mean = {i: float(first[i] + second[i]) / 2 for i in own}
        for i in own:
            pull += ((float(first[i]) - mean[i]) ** 2 + (float(second[i]) - mean[i]) ** 2) / len(own)
            for j in own:
                if i != j:
                    push += max(0.0, 1 - abs(mean[i] - mean[j])) / (len(own) * (len(own) - 1))
    got = AssociativeEmbeddingLoss(0.1, 0.2)(first, second, image)
    assert float(got[0]) == pytest.approx(0.1 * pull, rel=1e-5)
    assert float(got[1]) == pytest.approx(0.2 * push, rel=1e-5)


def perfect_maps(targets: list[Targets], images: ImageBatch) -> tuple[list[torch.Tensor], ...]:
    """What a head without fault would say: corners of every object, with the object's number as embedding."""
    objects = objects_on_map(targets, images, (16, 24))
    wanted = corner_targets(objects, (len(targets), 2, 16, 24))
    heats, embeddings, offsets = [], [], []
    for t in wanted:
        heats.append([torch.where(t.heat == 1, 4.0, -4.0)])
        embedding, offset = torch.zeros(len(targets), 1, 16, 24), torch.zeros(len(targets), 2, 16, 24)
        embedding[objects.image, 0, t.y, t.x] = torch.arange(len(objects.image), dtype=torch.float32)
        offset[objects.image, :, t.y, t.x] = t.point - torch.stack((t.x, t.y), dim=1)
        embeddings.append([embedding])
        offsets.append([offset])
    return (*heats, *embeddings, *offsets)


def test_boxes_come_back_from_perfect_maps() -> None:
    targets = some_targets()
    images = batch_of(targets)
    head = CornerHead(num_classes=2, levels=1, channels=8)
    maps = perfect_maps(targets, images)
    found = head.predict(maps, images, CornerTest(score_threshold=0.5))
    for detections, target in zip(found, targets):
        assert len(detections) == len(target)
        iou = box_iou(detections.boxes, target.boxes)
        for row, label in zip(iou, detections.labels):
            assert float(row.max()) == pytest.approx(1, abs=1e-4)
            assert label == target.labels[row.argmax()]
    moved = ImageBatch(images.pixels, images.sizes, [(32, 48)] * 3, [(2.0, 2.0)] * 3, [(3, 2)] * 3)
    for before, after in zip(found, head.predict(maps, moved, CornerTest(score_threshold=0.5))):
        want = (before.boxes - torch.tensor([3.0, 2, 3, 2])).clamp(min=0) / 2
        torch.testing.assert_close(after.boxes, want, rtol=1e-4, atol=1e-3)


def test_perfect_maps_cost_little_and_losses_are_finite_without_objects() -> None:
    targets = some_targets()
    images = batch_of(targets)
    head = CornerHead(num_classes=2, levels=1, channels=8)
    losses = head.loss(perfect_maps(targets, images), images, targets)
    assert float(losses["off_loss"]) == pytest.approx(0, abs=1e-5)
    assert float(losses["pull_loss"]) == pytest.approx(0, abs=1e-5)
    assert float(losses["push_loss"]) == pytest.approx(0, abs=1e-5)
    objects = objects_on_map(targets, images, (16, 24))
    wanted = corner_targets(objects, (3, 2, 16, 24))
    assert float(losses["det_loss"]) == pytest.approx(
        float(heat_loss([torch.where(t.heat == 1, 4.0, -4.0) for t in wanted], wanted))
    )
    outputs = head([torch.randn(2, 8, 8, 8)])
    empty = [Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))] * 2
    losses = head.loss(outputs, ImageBatch(torch.zeros(2, 3, 32, 32), [(32, 32)] * 2), empty)
    assert all(bool(value.isfinite()) for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, p in head.named_parameters() if p.grad is None] == []


class FixedDetector(SingleStageDetector):
    """Reads corners from the pixels themselves: channel 0 holds upper left, channel 1 lower right corners."""

    def __init__(self) -> None:
        head = CornerHead(num_classes=1, levels=1, channels=8)
        nothing = torch.nn.Identity()
        super().__init__(backbone=nothing, neck=nothing, bbox_head=head, test=CornerTest(score_threshold=0.5))

    def outputs(self, images: ImageBatch) -> tuple[list[torch.Tensor], ...]:
        heat = [[images.pixels[:, i : i + 1] * 8 - 4] for i in range(2)]
        zeros = [torch.zeros_like(images.pixels[:, :1])]
        return (*heat, zeros, zeros, [images.pixels[:, :2] * 0], [images.pixels[:, :2] * 0])


def test_flip_adds_what_is_found_in_the_mirror_image() -> None:
    pixels = torch.zeros(1, 3, 16, 24)
    # Seen in the image: from (4, 3) to (10, 12). Seen in its mirror image, 20 wide: from (2, 3) to (8, 9) there.
    pixels[0, 0, 3, 4] = pixels[0, 1, 12, 10] = 1
    pixels[0, 0, 3, 19 - 2] = pixels[0, 1, 9, 19 - 8] = 1
    images = ImageBatch(pixels, [(16, 20)], [(32, 40)], [(0.5, 0.5)])
    model = FixedDetector()
    alone = model.predict(images)[0].boxes.tolist()
    assert [8.0, 6.0, 20.0, 24.0] in alone
    both = predict_views(model, [images], ["horizontal"])[0].boxes.tolist()
    assert [8.0, 6.0, 20.0, 24.0] in both
    assert [40 - 16.0, 6.0, 40 - 4.0, 18.0] in both
    assert [40 - 16.0, 6.0, 40 - 4.0, 18.0] not in alone
