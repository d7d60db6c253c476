"""What has to be the same in a dataset that went into FiftyOne and came back."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from sdk.datasets.index import NO_SEGMENT, columns_of


def assert_same(dataset, back):
    before, after = columns_of(dataset), columns_of(back)
    assert back.classes == tuple(dataset.classes)
    assert list(back.category_ids) == list(dataset.category_ids)
    for name in ("image_ids", "annotation_ids", "labels", "ignore", "crowd", "image_offsets"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name), err_msg=name)
    assert np.abs(before.boxes - after.boxes).max() < 1e-4
    np.testing.assert_allclose(before.areas, after.areas)
    if before.segments is None:
        assert after.segments is None
        return
    worst = 1.0
    for row in range(len(before)):
        assert (before.segments.kind(row) == NO_SEGMENT) == (after.segments.kind(row) == NO_SEGMENT)
        one, other = before.segmentation(row), after.segmentation(row)
        both = coco_mask.area(coco_mask.merge([one, other], intersect=True))
        either = coco_mask.area(coco_mask.merge([one, other]))
        worst = min(worst, both / either if either else 1.0)
    assert worst >= 0.999
