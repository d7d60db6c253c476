"""Deformable DETR: its layout of levels, its shared branches, its options and its batches."""

from functools import partial

import pytest
import torch

from sdk.models.backbones.resnet import ResNet
from sdk.models.detectors.set_prediction import SetDetector
from sdk.models.methods.deformable_detr import DeformableDETRHead, deformable_detr, lay_out, shifted
from sdk.models.structures import ImageBatch, Targets

OPTIONS = {"plain": {}, "refine": {"refine": True}, "two_stage": {"refine": True, "two_stage": True}}


def small(**options: bool) -> SetDetector:
    torch.manual_seed(0)
    backbone = partial(ResNet, 18, out_stages=(1, 2, 3), base_channels=8)
    return deformable_detr(3, backbone=backbone, queries=6, layers=2, dropout=0.0, **options)


def some_images() -> ImageBatch:
    torch.manual_seed(1)
    sizes = [(64, 96), (40, 64)]
    pixels = torch.randn(2, 3, 64, 96)
    pixels[1, :, 40:] = 0
    pixels[1, :, :, 64:] = 0
    return ImageBatch(pixels, sizes)


@pytest.mark.parametrize("option", OPTIONS)
def test_batch_equals_single_images(option: str) -> None:
    model, images = small(**OPTIONS[option]).eval(), some_images()
    with torch.no_grad():
        together = model.predict(images)
        alone = [model.predict(ImageBatch(images.pixels[i : i + 1], images.sizes[i : i + 1]))[0] for i in range(2)]
    for batch, single in zip(together, alone):
        torch.testing.assert_close(batch.boxes, single.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(batch.scores, single.scores)


@pytest.mark.parametrize("option", OPTIONS)
def test_losses_of_images_without_objects(option: str) -> None:
    """Every part gets a gradient, with objects and without any, from finite losses."""
    model, images = small(**OPTIONS[option]).train(), some_images()
    some = Targets(torch.tensor([[5.0, 5, 40, 30], [20, 10, 60, 35]]), torch.tensor([0, 2]))
    none = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    for targets in ([some, none], [none, none]):
        losses = model(images, targets)
        assert all(bool(value.isfinite()) for value in losses.values())
        model.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert missing == []
    depths = {name.split("loss")[0] for name in losses}
    assert depths == {"", "d0."} | ({"enc_"} if option == "two_stage" else set())


def test_layers_share_branches_unless_they_refine() -> None:
    plain, refined = small().bbox_head, small(refine=True).bbox_head
    assert plain.cls_branches[0] is plain.cls_branches[1]
    assert refined.cls_branches[0] is not refined.cls_branches[1]
    assert "reg_branches.1.4.bias" in plain.state_dict()


def test_shared_branches_load_from_the_first_name_alone() -> None:
    head = DeformableDETRHead(num_classes=2, channels=16, queries=3, heads=2, layers=2, levels=2, hidden=8)
    state = {key: torch.randn_like(value) for key, value in head.state_dict().items()}
    given = {key: value for key, value in state.items() if "branches.1" not in key}
    keys = set(given)
    head.load_state_dict(given, strict=True)
    assert torch.equal(head.cls_branches[1].weight, state["cls_branches.0.weight"])
    assert set(given) == keys
    incomplete = {key: value for key, value in given.items() if "cls_branches" not in key}
    with pytest.raises(RuntimeError, match="cls_branches"):
        head.load_state_dict(incomplete, strict=True)


def test_layout_of_padded_levels() -> None:
    """An image of 4 x 6 places in a map of 4 x 8, and of 2 x 3 in 2 x 4."""
    masks = [torch.zeros(1, 4, 8, dtype=torch.bool), torch.zeros(1, 2, 4, dtype=torch.bool)]
    masks[0][..., 6:] = True
    masks[1][..., 3:] = True
    levels, places = lay_out(masks)
    assert levels.starts.tolist() == [0, 32]
    assert levels.shapes.tolist() == [[4, 8], [2, 4]]
    torch.testing.assert_close(levels.valid, torch.full((1, 2, 2), 0.75).index_fill(2, torch.tensor([1]), 1.0))
    torch.testing.assert_close(places[0, 8 + 2], torch.tensor([2.5 / 6, 1.5 / 4]))
    torch.testing.assert_close(places[0, 32 + 4 + 1], torch.tensor([1.5 / 3, 1.5 / 2]))


def test_codes_of_zero_are_the_reference() -> None:
    boxes = torch.tensor([[0.3, 0.6, 0.2, 0.9]])
    torch.testing.assert_close(shifted(torch.zeros(1, 4), boxes), boxes)
    torch.testing.assert_close(shifted(torch.zeros(1, 4), boxes[:, :2]), torch.tensor([[0.3, 0.6, 0.5, 0.5]]))


def test_proposals_keep_off_padding_and_edges() -> None:
    head = small(refine=True, two_stage=True).bbox_head
    padding = torch.zeros(1, 64, 64, dtype=torch.bool)
    padding[:, :, 32:] = True
    features = [torch.randn(1, 256, size, size) for size in (8, 4, 2, 1)]
    masks = [torch.nn.functional.interpolate(padding[:, None].float(), size=f.shape[2:])[:, 0].bool() for f in features]
    memory, places = head.transformer.encode(features, masks)
    encoded, anchors = head.transformer.proposals(memory, places)
    finite = anchors.isfinite().all(dim=-1)[0]
    inside = ~memory.padding[0]
    assert torch.equal(finite, inside)
    sizes = anchors[0, finite][:, 2:].sigmoid()
    levels = torch.arange(4).repeat_interleave(torch.tensor([64, 16, 4, 1]))[finite]
    torch.testing.assert_close(sizes, (0.05 * 2.0**levels)[:, None].expand(-1, 2))
    assert encoded.shape == memory.values.shape
