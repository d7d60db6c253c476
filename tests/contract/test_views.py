"""Every method sees images in several views: one view is plain prediction, a mirrored image is mirrored throughout."""

import pytest
import torch
import torch.nn.functional as F
from small_detectors import batch, representatives, unthresholded

from sdk.models.structures import ImageBatch
from sdk.models.tta import predict_views

REPRESENTATIVES = representatives()
QUICK = {
    "mask_rcnn_r101_caffe_fpn_1x_coco",
    "centripetalnet_hourglass104_mstest_16x6_210e_coco",
    "detr_r50_8x2_150e_coco",
    "retinanet_r101_caffe_fpn_1x_coco",
    "yolact_r101_1x8_coco",
}


def padded(pixels: torch.Tensor, divisor: int) -> torch.Tensor:
    """(B, 3, H, W) pixels with zeros on the right and bottom, up to multiples of ``divisor``."""
    return F.pad(pixels, (0, -pixels.shape[3] % divisor, 0, -pixels.shape[2] % divisor))


def at_half_size(images: ImageBatch, divisor: int) -> ImageBatch:
    """The same images at half their size, whose detections are given in the pixels of the whole."""
    small = padded(F.avg_pool2d(images.pixels, 2), divisor)
    sizes = [(h // 2, w // 2) for h, w in images.sizes]
    return ImageBatch(small, sizes, images.sizes, [(w / v, h / u) for (h, w), (u, v) in zip(sizes, images.sizes)])


def mirrored(images: ImageBatch) -> ImageBatch:
    """The batch with the valid part of every image turned left to right."""
    pixels = images.pixels.clone()
    for index, (h, w) in enumerate(images.sizes):
        pixels[index, :, :h, :w] = images.pixels[index, :, :h, :w].flip(2)
    return ImageBatch(pixels, images.sizes, images.original_sizes, images.scales)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.long) for n in REPRESENTATIVES]
)
@torch.no_grad()
def test_views(name):
    recipe = REPRESENTATIVES[name]
    model = unthresholded(recipe)
    model.test.max_per_image = 10
    images, targets = batch(recipe, (3, 2))
    divisor = recipe.preprocessing.divisor
    images = ImageBatch(padded(images.pixels, divisor), images.sizes, images.sizes, [(1.0, 1.0)] * 2)
    batches, proposals, turned = [images, at_half_size(images, divisor)], None, None
    given = {}
    if recipe.needs_proposals:
        proposals = [[t.proposals for t in targets], [t.proposals / 2 for t in targets]]
        turned = [[turn(p, w) for p, (_, w) in zip(own, b.sizes)] for own, b in zip(proposals, batches)]
        given = {"proposals": proposals[0]}

    plain = model.predict(images, **given)
    for same, expected in zip(predict_views(model, batches[:1], (), proposals and proposals[:1]), plain, strict=True):
        assert torch.equal(same.boxes, expected.boxes)
        assert torch.equal(same.scores, expected.scores)

    if image_is_enough(recipe):
        batches, proposals, turned = batches[:1], proposals and proposals[:1], turned and turned[:1]
    ones = predict_views(model, batches, ["horizontal"], proposals)
    others = predict_views(model, [mirrored(b) for b in batches], ["horizontal"], turned)
    for one, other, (_, width) in zip(ones, others, images.sizes, strict=True):
        assert 0 < len(one) == len(other) <= 10
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-5)
        # Equal scores may come in any order, and which of them comes last may differ.
        found = torch.cat((one.scores[:, None], one.labels[:, None], one.boxes), dim=1)
        back = torch.cat((other.scores[:, None], other.labels[:, None], turn(other.boxes, width)), dim=1)
        gap = (found[:, None] - back[None]).abs().amax(dim=2).amin(dim=1)
        assert bool((gap < 0.05)[one.scores > one.scores[-1] + 1e-4].all())
        assert (one.masks is None) == (plain[0].masks is None)
        assert (one.mask_scores is None) == (plain[0].mask_scores is None)


def image_is_enough(recipe) -> bool:
    """SSD's last maps vanish in smaller images."""
    return "ssd" in recipe.name


def turn(boxes: torch.Tensor, width: float) -> torch.Tensor:
    """(N, 4) boxes mirrored left to right."""
    return torch.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), dim=1)
