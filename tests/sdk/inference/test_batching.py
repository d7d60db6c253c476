from dataclasses import replace

import numpy as np
import pytest

from sdk.datasets.masks import BitMasks
from sdk.datasets.sample import Sample
from sdk.datasets.transforms import Preprocessing
from sdk.inference.batching import Collate


def sample_of(h, w):
    """Grey, with one white object that its box, mask and semantic map show."""
    image = np.full((h, w, 3), 100, np.uint8)
    image[5:20, 10:30] = 255
    mask = (image[None, ..., 0] == 255).astype(np.uint8)
    box = np.array([[10, 5, 30, 20]], np.float32)
    return Sample(
        image, box, np.zeros(1, int), np.zeros(1, bool), 0, masks=BitMasks(mask), semantic=mask[0], proposals=box
    )


@pytest.mark.parametrize("centered", [False, True])
def test_pixels_and_targets_lie_alike(centered):
    preprocessing = Preprocessing(None, divisor=64, centered=centered)
    batch = Collate(preprocessing, masks=True, semantic=True, proposals=True)([sample_of(40, 90), sample_of(70, 33)])
    assert batch.images.padded_size == ((127, 127) if centered else (128, 128))
    for i, (target, (h, w)) in enumerate(zip(batch.targets, [(40, 90), (70, 33)])):
        white = batch.images.pixels[i, 0] > 2
        rows, columns = white.nonzero().T
        tight = [columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1]
        assert target.boxes[0].tolist() == tight
        assert target.proposals[0].tolist() == tight
        assert (target.masks[0].bool() == white).all()
        x, y = batch.images.offset(i)
        assert [tight[0] - x, tight[1] - y] == [10, 5]
        assert (batch.images.pixels[i] != 0).all(dim=0).sum() == h * w
        assert (target.semantic == 255).sum() == target.semantic.numel() - h * w
        assert ((x, y) != (0, 0)) == centered


def test_objects_without_area_are_no_ground_truth():
    sample = sample_of(40, 90)
    boxes = np.array([[10, 5, 30, 20], [4, 4, 4, 9], [90, 3, 90, 8], [1, 2, 7, 2]], np.float32)
    masks = BitMasks(np.repeat(sample.masks.decode(), 4, axis=0))
    sample = replace(sample, boxes=boxes, labels=np.arange(4), ignore=np.zeros(4, bool), masks=masks)
    (target,) = Collate(Preprocessing(None), masks=True)([sample]).targets
    assert target.boxes.tolist() == boxes[:1].tolist()
    assert target.labels.tolist() == [0]
    assert len(target.masks) == 1
