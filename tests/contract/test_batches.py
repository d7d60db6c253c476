"""Batches without objects train every method: finite losses, and the same parameters receive gradients."""

import pytest
import torch
from small_detectors import batch, representatives, small_detector

from sdk.models.backbones.resnet import ResNet

REPRESENTATIVES = representatives()
QUICK = {
    "cascade_mask_rcnn_r101_caffe_fpn_1x_coco",
    "faster_rcnn_r101_caffe_fpn_1x_coco",
    "fcos_center-normbbox-centeronreg-giou_r50_caffe_fpn_gn-head_1x_coco",
    "retinanet_r101_caffe_fpn_1x_coco",
    "ssd300_coco",
    "yolact_r101_1x8_coco",
    "yolof_r50_c5_8x8_1x_coco",
}
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in REPRESENTATIVES]


def test_quick_names_are_those_of_representatives():
    assert REPRESENTATIVES.keys() >= QUICK


def gradients(model, images, targets):
    """The losses, and names of the parameters that receive a gradient."""
    model.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    losses = model(images, targets)
    sum(losses.values()).backward()
    return losses, {name for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", NAMES)
def test_empty_images_train(name):
    recipe = REPRESENTATIVES[name]
    model = small_detector(recipe).train()
    # A ResNet that stands in for another backbone may have stages that the method does not read.
    last = max(model.backbone.out_stages) + 1 if isinstance(model.backbone, ResNet) else 4
    unread = tuple(f"backbone.layer{stage + 1}." for stage in range(last, 4))
    trainable = {key for key, p in model.named_parameters() if p.requires_grad and not key.startswith(unread)}
    for objects in ((3, 2), (3, 0), (0, 0)):
        losses, received = gradients(model, *batch(recipe, objects))
        for term, value in losses.items():
            assert value.ndim == 0, term
            assert torch.isfinite(value), (objects, term, value)
        assert received == trainable, (objects, sorted(trainable - received)[:5])


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_its_images(name):
    """What is found in a batch of two is what is found in either alone."""
    recipe = REPRESENTATIVES[name]
    model = small_detector(recipe).eval()
    images, targets = batch(recipe, (3, 2))
    extra = {"proposals": [t.proposals for t in targets]} if recipe.needs_proposals else {}
    with torch.no_grad():
        together = model.predict(images, **extra)
        for index, found in enumerate(together):
            one = type(images)(images.pixels[index : index + 1], images.sizes[index : index + 1])
            alone = model.predict(one, **{key: value[index : index + 1] for key, value in extra.items()})[0]
            assert len(found) == len(alone)
            torch.testing.assert_close(found.scores, alone.scores, rtol=1e-3, atol=1e-4)
