"""Detectors of the first generation: what their whole pixels change."""

from __future__ import annotations

import torch
from plain_boxes import centre_and_size

from sdk.models.methods.legacy import legacy_ssd_anchors
from sdk.models.methods.ssd import SSD300, ssd_anchors

CPU = torch.device("cpu")


def test_default_boxes_end_at_whole_pixels():
    """Around the middle of the cell's pixels, as large as today's when the last pixel is counted, up to rounding."""
    sizes = [(2, 2)] * 6
    for old, new in zip(legacy_ssd_anchors(SSD300)(sizes, CPU), ssd_anchors(SSD300)(sizes, CPU), strict=True):
        assert torch.equal(old, old.round())
        for first, today in zip(old.tolist(), new.tolist(), strict=True):
            (x, y, w, h), (new_x, new_y, new_w, new_h) = centre_and_size(first), centre_and_size(today)
            assert max(abs(x - new_x + 0.5), abs(y - new_y + 0.5)) <= 0.5
            assert max(abs(w + 1 - new_w), abs(h + 1 - new_h)) <= 1
