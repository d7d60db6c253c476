"""DETR: its loss by hand, its batches, and its older files."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import generalized_box_iou

from sdk.models.backbones.resnet import ResNet
from sdk.models.detectors.set_prediction import SetDetector, SetOutputs
from sdk.models.methods.detr import DETRHead, detr
from sdk.models.structures import ImageBatch, Targets
from sdk.models.weights.layouts import to_current

SMALL = partial(ResNet, 18, out_stages=(3,), base_channels=8)


@pytest.fixture
def model() -> SetDetector:
    torch.manual_seed(0)
    return detr(3, backbone=SMALL, queries=5, layers=2).eval()


@pytest.fixture
def images() -> ImageBatch:
    torch.manual_seed(1)
    sizes = [(128, 96), (70, 96)]
    pixels = torch.randn(2, 3, 128, 128)
    for image, (h, w) in zip(pixels, sizes):
        image[:, h:] = 0
        image[:, :, w:] = 0
    return ImageBatch(pixels, sizes)


def test_batch_equals_single_images(model: SetDetector, images: ImageBatch) -> None:
    with torch.no_grad():
        together = model.predict(images)
        alone = [model.predict(ImageBatch(images.pixels[i : i + 1], images.sizes[i : i + 1]))[0] for i in range(2)]
    for batch, single in zip(together, alone):
        torch.testing.assert_close(batch.boxes, single.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(batch.scores, single.scores)
        assert torch.equal(batch.labels, single.labels)


def test_padding_is_not_looked_at(model: SetDetector) -> None:
    head = model.bbox_head
    features = torch.randn(1, 64, 4, 4)
    padding = torch.ones(1, 128, 128, dtype=torch.bool)
    padding[:, :96, :64] = False
    other = features.clone()
    other[:, :, 3:] += 10
    other[:, :, :, 2:] -= 10
    with torch.no_grad():
        (one,), (two,) = head([features], padding), head([other], padding)
    torch.testing.assert_close(one.logits, two.logits)
    torch.testing.assert_close(one.boxes, two.boxes)


def test_loss_by_hand() -> None:
    """One image and one object, which plainly belongs to the second query."""
    head = DETRHead(num_classes=2, in_channels=4, channels=8, queries=2, heads=2, layers=1, hidden=8)
    logits = torch.tensor([[[[0.0, 0.1, 0.5], [0.2, 2.0, 0.3]]]])
    boxes = torch.tensor([[[[0.2, 0.2, 0.1, 0.1], [0.5, 0.5, 0.4, 0.4]]]])
    images = ImageBatch(torch.zeros(1, 3, 64, 128), [(50, 100)])
    target = Targets(torch.tensor([[30.0, 10, 80, 40]]), torch.tensor([1]))
    got = head.loss((SetOutputs(logits, boxes),), images, [target])
    log_p = F.log_softmax(logits[0, 0], dim=-1)
    assert float(got["loss_cls"]) == pytest.approx(float(-(0.1 * log_p[0, 2] + log_p[1, 1]) / 1.1), rel=1e-5)
    wanted = torch.tensor([0.55, 0.5, 0.5, 0.6])
    assert float(got["loss_bbox"]) == pytest.approx(5 * float((wanted - boxes[0, 0, 1]).abs().sum()), rel=1e-5)
    giou = generalized_box_iou(torch.tensor([[30.0, 15, 70, 35]]), target.boxes)
    assert float(got["loss_iou"]) == pytest.approx(2 * (1 - float(giou)), rel=1e-5)


def test_threshold_and_count_of_detections(model: SetDetector, images: ImageBatch) -> None:
    with torch.no_grad():
        model.test.max_per_image = 2
        found = model.predict(images)[0]
        assert len(found) == 2
        assert found.scores[0] >= found.scores[1]
        model.test.score_threshold = float(found.scores[0]) - 1e-6
        assert len(model.predict(images)[0]) == 1
    assert bool((found.boxes >= 0).all())
    assert bool((found.boxes <= torch.tensor([96.0, 128, 96, 128])).all())


def test_older_files_load_through_the_rename_table(model: SetDetector, tmp_path) -> None:
    older = {}
    for key, value in model.state_dict().items():
        for old, new in (("self_attn", "attentions.0"), ("multihead_attn", "attentions.1"), ("ffn", "ffns.0")):
            key = key.replace(f".{new}.", f".{old}.")
        older[key.replace(".decoder.post_norm.", ".decoder.norm.")] = value
    assert "bbox_head.transformer.decoder.layers.0.multihead_attn.attn.in_proj_weight" in older
    torch.save({"state_dict": older}, tmp_path / "older.pth")
    loaded = torch.load(tmp_path / "older.pth", weights_only=True)["state_dict"]
    fresh = detr(3, backbone=SMALL, queries=5, layers=2)
    fresh.load_state_dict(to_current(loaded, fresh.state_dict()), strict=True)
    for key, value in fresh.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])
    assert to_current(fresh.state_dict(), fresh.state_dict()).keys() == fresh.state_dict().keys()
