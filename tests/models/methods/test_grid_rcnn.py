"""Grid R-CNN: heat map targets against a drawing pixel by pixel, and boxes read back from perfect heat maps."""

from __future__ import annotations

import torch

from sdk.models.methods.grid_rcnn import GridHead

BOXES = torch.tensor([[10.0, 20.0, 50.0, 44.0], [30.0, 30.0, 31.0, 60.0]])
WANTED = torch.tensor([[12.0, 18.0, 47.0, 40.0], [28.0, 33.0, 33.0, 58.0]])


def drawn(box: list[float], wanted: list[float]) -> torch.Tensor:
    """The whole 56 x 56 maps of one region by loops, then the half that each point sees."""
    left, top = box[0] - (box[2] - box[0]) / 2, box[1] - (box[3] - box[1]) / 2
    width, height = 2 * (box[2] - box[0]), 2 * (box[3] - box[1])
    maps = torch.zeros(9, 28, 28)
    if width <= 3 or height <= 3:
        return maps
    for point in range(9):
        column, line = divmod(point, 3)
        x = wanted[0] + (wanted[2] - wanted[0]) * column / 2
        y = wanted[1] + (wanted[3] - wanted[1]) * line / 2
        at_x, at_y = int((x - left) / width * 56), int((y - top) / height * 56)
        for dx, dy in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
            row, col = at_y + dy - 14 * line, at_x + dx - 14 * column
            if 0 <= row < 28 and 0 <= col < 28:
                maps[point, row, col] = 1
    return maps


def test_targets_are_small_crosses_at_the_grid_points() -> None:
    head = GridHead(convs=1)
    targets = head.targets(BOXES, WANTED)
    for got, box, wanted in zip(targets, BOXES.tolist(), WANTED.tolist(), strict=True):
        torch.testing.assert_close(got, drawn(box, wanted))
    assert targets[1].sum() == 0, "a box one pixel wide has no targets"


def test_boxes_come_back_from_their_own_targets() -> None:
    head = GridHead(convs=1)
    targets = head.targets(BOXES[:1], WANTED[:1])
    # The centre of a cross is where the most of it lies around.
    around = torch.nn.functional.avg_pool2d(targets, 3, stride=1, padding=1)
    found = head.boxes(BOXES[:1], 20 * around * targets - 10)
    cell = (BOXES[0, 2:] - BOXES[0, :2]).max() / 28
    assert (found - WANTED[:1]).abs().max() <= cell


def test_training_without_positives_reaches_every_parameter() -> None:
    head = GridHead(convs=1)
    heat = head(torch.zeros(0, 256, 14, 14))
    head.loss(heat, torch.zeros(0, 9, 28, 28))["loss_grid"].backward()
    assert all(p.grad is not None for p in head.parameters())
