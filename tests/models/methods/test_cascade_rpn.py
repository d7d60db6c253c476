"""Cascade RPN: where its taps lie, and that it trains on images without objects."""

from __future__ import annotations

import torch

from sdk.models.methods.cascade_rpn import AdaptiveConv, CascadeRPNHead
from sdk.models.settings import ProposalSettings
from sdk.models.structures import ImageBatch, Targets


def test_taps_are_spread_over_the_anchor():
    stride, (h, w) = 8, (20, 24)
    centres = torch.tensor([[95.0, 70.0], [100.0, 84.5]])
    sizes = torch.tensor([[40.0, 24.0], [10.0, 60.0]])
    row, column = 9, 12
    for centre, size in zip(centres, sizes, strict=True):
        anchors = torch.zeros(1, h * w, 4)
        anchors[0, row * w + column] = torch.cat((centre - size / 2, centre + size / 2))
        # Bilinear sampling of a ramp gives the place that is sampled.
        ramps = torch.stack(
            (torch.arange(w).float().expand(h, w), torch.arange(h).float()[:, None].expand(h, w)), dim=0
        )[None]
        for tap_y in range(3):
            for tap_x in range(3):
                conv = AdaptiveConv(2)
                weight = torch.zeros(2, 2, 3, 3)
                weight[0, 0, tap_y, tap_x] = weight[1, 1, tap_y, tap_x] = 1
                conv.conv.weight.data = weight
                got = conv(ramps, anchors, stride)[0, :, row, column]
                wanted = (centre + (torch.tensor([tap_x, tap_y]) - 1) * size / 2) / stride
                torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_images_without_objects():
    torch.manual_seed(0)
    head = CascadeRPNHead(
        channels=4, box_weight=7.0, class_weight=0.7, proposals=ProposalSettings(max_per_image=50, nms_threshold=0.8)
    )
    maps = [torch.randn(2, 4, 32 // 2**level, 32 // 2**level) for level in range(5)]
    images = ImageBatch(torch.zeros(2, 3, 128, 128), [(128, 128), (100, 120)])
    empty = Targets(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    one = Targets(boxes=torch.tensor([[20.0, 20.0, 80.0, 70.0]]), labels=torch.tensor([2]))
    for targets in ([empty, empty], [empty, one]):
        head.zero_grad()
        outputs = head.outputs(maps, images)
        losses = head.loss(outputs, images, targets)
        sum(losses.values()).backward()
        assert all(torch.isfinite(value) for value in losses.values())
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())
    together = head.propose(outputs, images)[1]
    last = ImageBatch(images.pixels[1:], [(100, 120)])
    alone = head.propose(head.outputs([m[1:] for m in maps], last), last)[0]
    torch.testing.assert_close(together.boxes, alone.boxes, rtol=1e-4, atol=1e-3)
    assert len(alone) == 50
    assert (alone.boxes[:, 2] <= 120).all()
