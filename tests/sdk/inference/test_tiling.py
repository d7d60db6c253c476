"""Tiles: where they lie, what is put together, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sahi.postprocess.combine import GreedyNMMPostprocess, NMSPostprocess
from sahi.prediction import ObjectPrediction
from sahi.slicing import get_slice_bboxes

import sdk
from sdk.datasets import Shapes
from sdk.datasets.transforms import Preprocessing
from sdk.inference.tiling import Tiles, merged
from sdk.models.structures import Detections


@pytest.mark.parametrize("size", [(64, 64), (640, 640), (641, 1999), (1500, 300), (1, 2000)])
@pytest.mark.parametrize("tiles", [Tiles(640, 0.2), Tiles((300, 500), 0.35), Tiles(100, 0.0)])
def test_tiles_lie_as_those_of_sahi(size, tiles):
    tall, wide = tiles.size if isinstance(tiles.size, tuple) else (tiles.size, tiles.size)
    made = tiles.rectangles(*size)
    assert made == [
        tuple(box)
        for box in get_slice_bboxes(
            *size,
            slice_height=tall,
            slice_width=wide,
            overlap_height_ratio=tiles.overlap,
            overlap_width_ratio=tiles.overlap,
        )
    ]
    covered = np.zeros(size, bool)
    for x1, y1, x2, y2 in made:
        assert (y2 - y1, x2 - x1) == (min(tall, size[0]), min(wide, size[1]))
        covered[y1:y2, x1:x2] = True
    assert covered.all()


def random_found(tiles, count: int, seed: int) -> list[Detections]:
    """Boxes of two classes inside each tile, at most one in each cell of a grid, which is the same for all tiles."""
    random = torch.Generator().manual_seed(seed)
    found = []
    for x1, y1, _, _ in tiles:
        cells = torch.stack(torch.meshgrid(torch.arange(5), torch.arange(5), indexing="xy"), -1).reshape(-1, 2) * 20
        cells = cells[torch.randperm(25, generator=random)[:count]]
        starts = cells + torch.randint(6, cells.shape, generator=random)
        boxes = torch.cat([starts, cells + 20 - torch.randint(6, cells.shape, generator=random)], 1).float()
        labels = (cells + torch.tensor([x1, y1])).sum(1) // 20 % 2
        found.append(Detections(boxes, torch.rand(count, generator=random).sort(descending=True).values, labels))
    return found


@pytest.mark.parametrize("merge", ["nms", "nmm"])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_found_is_put_together_as_sahi_does(merge, seed):
    """Where the boxes of a tile do not overlap, merging within tiles changes nothing: then both rules are the same."""
    tiles = Tiles(100, 0.4, merge=merge, threshold=0.3)
    rectangles = tiles.rectangles(160, 220)
    found = random_found(rectangles, 16, seed)
    ours = merged(found, rectangles, (160, 220), tiles)
    predictions = [
        ObjectPrediction(
            bbox=[value + shift for value, shift in zip(box, (x, y, x, y))],
            category_id=label,
            score=score,
            full_shape=[160, 220],
        )
        for one, (x, y, _, _) in zip(found, rectangles)
        for box, label, score in zip(one.boxes.tolist(), one.labels.tolist(), one.scores.tolist())
    ]
    kind = {"nms": NMSPostprocess, "nmm": GreedyNMMPostprocess}[merge]
    theirs = kind(0.3, {"nms": "IOU", "nmm": "IOS"}[merge], class_agnostic=False)(predictions)
    theirs = sorted(theirs, key=lambda one: -one.score.value)
    assert len(theirs) < len(predictions)
    assert ours.scores.tolist() == pytest.approx([one.score.value for one in theirs])
    assert ours.labels.tolist() == [one.category.id for one in theirs]
    if merge == "nms":
        assert ours.boxes.tolist() == [list(one.bbox.to_xyxy()) for one in theirs]
    else:
        # Its chains of merged boxes are checked once more against the grown box, which leaves some out.
        grown = [list(one.bbox.to_xyxy()) for one in theirs]
        same = [box == other for box, other in zip(ours.boxes.tolist(), grown)]
        assert np.mean(same) > 0.9


def test_an_object_on_a_border_becomes_one_with_its_mask():
    """One that is cut by the border of a tile, and seen whole by no tile, is joined where both parts overlap."""
    tiles = Tiles(60, 1 / 3)
    rectangles = tiles.rectangles(60, 100)
    assert rectangles == [(0, 0, 60, 60), (40, 0, 100, 60)]
    mask = torch.zeros(60, 100, dtype=torch.bool)
    mask[20:40, 38:70] = True

    def seen(x1: int, x2: int, score: float) -> Detections:
        left, right = max(38, x1) - x1, min(70, x2) - x1
        one = Detections(
            torch.tensor([[left, 20.0, right, 40.0]]), torch.tensor([score]), torch.tensor([1]), mask[None, :, x1:x2]
        )
        return replace(one, mask_scores=torch.tensor([score / 2]))

    found = merged([seen(0, 60, 0.6), seen(40, 100, 0.9)], rectangles, (60, 100), tiles)
    assert found.boxes.tolist() == [[38.0, 20.0, 70.0, 40.0]]
    assert found.scores.tolist() == pytest.approx([0.9])
    assert found.mask_scores is not None
    assert found.mask_scores.tolist() == pytest.approx([0.45])
    assert torch.equal(found.masks[0], mask)
    other = replace(seen(40, 100, 0.9), labels=torch.tensor([0]))
    assert len(merged([seen(0, 60, 0.6), other], rectangles, (60, 100), tiles)) == 2
    nothing = Detections(
        torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 60, 60) > 0
    )
    assert merged([nothing, nothing], rectangles, (60, 100), tiles).masks.shape == (0, 60, 100)


def test_what_one_tile_finds_stays_as_it_is():
    """Boxes inside one another, and on the border of the tile, of one class."""
    tiles = Tiles(60, 0.2)
    rectangles = tiles.rectangles(60, 108)
    boxes = torch.tensor([[0.0, 0, 60, 60], [10, 10, 30, 30], [12, 12, 28, 28]])
    one = Detections(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64))
    nothing = one[:0]
    found = merged([one, nothing], rectangles, (60, 108), tiles)
    assert torch.equal(found.boxes, boxes)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_tiles_in_predict(tiny, batch_size, tmp_path):
    """Every tile is seen as if it were an image; an image that is one tile is seen as without tiles."""
    model = tiny(seed=1)
    model.test.score_threshold, model.test.max_per_image = 0.0, 5
    model.recipe = replace(model.recipe, preprocessing=Preprocessing(size=None))
    image = np.vstack(
        [np.hstack([Shapes(4, size=(64, 64))[2 * row + column].image for column in (0, 1)]) for row in (0, 1)]
    )
    tiles = Tiles(64, 0.0)
    found = sdk.predict([image] * 4, model, tiles=(64, 0.0), batch_size=batch_size)
    parts = sdk.predict(
        [image[y1:y2, x1:x2] for x1, y1, x2, y2 in tiles.rectangles(128, 128)], model, batch_size=batch_size
    )
    expected = merged(parts, tiles.rectangles(128, 128), (128, 128), tiles)
    for one in found:
        assert one.size == (128, 128)
        torch.testing.assert_close(one.boxes, expected.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(one.scores, expected.scores, rtol=1e-4, atol=1e-5)
    whole = sdk.predict(image, model)
    assert torch.equal(sdk.predict(image, model, tiles=128).boxes, whole.boxes)
    best = sdk.predict(image, model, tiles=Tiles(64, 0.0, merge="nms", threshold=0.999, whole=True))
    assert len(best) == len(whole) + len(expected)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    left = sdk.predict([image, bad, image], model, tiles=64, on_fault="skip", batch_size=batch_size)
    assert [one.image_id for one in left] == ["000000", "000002"]
    assert len(left.faults) == 1


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (0, "size"),
        ((64, 1.0), "overlap"),
        ((64.5, 0.2), "size"),
        ("640", "expected the size"),
        ((1, 2, 3), "expected the"),
    ],
)
def test_wrong_tiles_are_refused(tiny, wrong, told):
    with pytest.raises(ValueError, match=f"tiles: .*{told}"):
        sdk.predict(np.zeros((8, 8, 3), np.uint8), tiny(), tiles=wrong)
