"""Post-processing of batches whose number and sizes a program does not know finds what that of each image finds."""

import pytest
import torch
from small_detectors import batch, representatives, unthresholded

from sdk.deployment.network import suppress_by_torchvision
from sdk.models.methods.centripetalnet import centripetalnet
from sdk.models.methods.cornernet import cornernet
from sdk.models.methods.point_rend import point_rend
from sdk.models.methods.yolact import yolact
from sdk.models.structures import ImageBatch, OpenBatch
from sdk.models.zoo.builders import innermost
from sdk.ops.paste_masks import paste_masks

# What works on each image anew.
NOT_YET = (centripetalnet, cornernet, point_rend, yolact)
REPRESENTATIVES = {
    name: recipe
    for name, recipe in representatives().items()
    if not recipe.needs_proposals and innermost(recipe.build) not in NOT_YET
}
QUICK = {
    "cascade_rcnn_r101_caffe_fpn_1x_coco",
    "detr_r50_8x2_150e_coco",
    "grid_rcnn_r101_fpn_gn-head_2x_coco",
    "mask_rcnn_r101_caffe_fpn_1x_coco",
    "paa_r101_fpn_1x_coco",
    "sabl_retinanet_r101_fpn_1x_coco",
    "yolov3_d53_320_273e_coco",
}


def test_quick_names_are_those_of_representatives():
    assert REPRESENTATIVES.keys() >= QUICK


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.long) for n in REPRESENTATIVES]
)
@torch.no_grad()
def test_open_batches(name):
    recipe = REPRESENTATIVES[name]
    model = unthresholded(recipe)
    model.test.max_per_image = 10
    plain, _ = batch(recipe, (0, 0))
    sizes, scales = list(plain.sizes), [(1.0, 1.0), (0.5, 0.25)]
    original = [(round(h / y), round(w / x)) for (h, w), (x, y) in zip(sizes, scales)]
    expected = model.predict(ImageBatch(plain.pixels, sizes, original, scales))
    open_batch = OpenBatch(plain.pixels, torch.tensor(sizes).float(), torch.tensor(scales), suppress_by_torchvision)
    (found,) = model.predict(open_batch)
    assert sum(map(len, expected)) > 0
    for index, own in enumerate(expected):
        there = found.labels[index] >= 0
        assert int(there.sum()) == len(own)
        # What is there stands before what is not.
        assert there[: len(own)].all()
        torch.testing.assert_close(found.scores[index, : len(own)], own.scores, rtol=1e-4, atol=1e-6)
        assert torch.equal(found.labels[index, : len(own)], own.labels)
        torch.testing.assert_close(found.boxes[index, : len(own)], own.boxes, rtol=1e-4, atol=1e-3)
        if own.masks is not None:
            masks = paste_masks(found.masks[index, : len(own)], own.boxes, original[index], model.test.mask_threshold)
            assert (masks != own.masks).float().mean() < 1e-3
