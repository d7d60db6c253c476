"""Fine-tuning: what other classes keep of a checkpoint."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sdk import models
from sdk.models.structures import ImageBatch
from sdk.models.weights.classes import class_layers

NAMES = tuple(f"class{i}" for i in range(80))
KEPT = ("class7", "class3", "class79")

# Entries that hold classes, by hand, and how the file's rows of class k are found: (head entry, rows of class k,
# rows that belong to no class).
EXPECTED = {
    "retinanet_r50_fpn_1x_coco": {"bbox_head.retina_cls": (lambda k, n: [n * a + k for a in range(9)], [])},
    "fcos_r50_caffe_fpn_gn-head_1x_coco": {"bbox_head.conv_cls": (lambda k, n: [k], [])},
    "mask_rcnn_r50_fpn_1x_coco": {
        "roi_head.bbox_head.fc_cls": (lambda k, n: [k], [-1]),
        "roi_head.bbox_head.fc_reg": (lambda k, n: [4 * k, 4 * k + 1, 4 * k + 2, 4 * k + 3], []),
        "roi_head.mask_head.conv_logits": (lambda k, n: [k], []),
    },
    "ssd300_coco": {
        f"bbox_head.cls_convs.{level}.0": (lambda k, n, A=A: [(n + 1) * a + k for a in range(A)], [])
        for level, A in enumerate((4, 6, 6, 6, 4, 4))
    },
    "yolov3_d53_320_273e_coco": {
        f"bbox_head.convs_pred.{level}": (lambda k, n: [(n + 5) * a + 5 + k for a in range(3)], [0, 1, 2, 3, 4])
        for level in range(3)
    },
    "yolact_r50_1x8_coco": {
        "bbox_head.conv_cls": (lambda k, n: [(n + 1) * a + k for a in range(3)], [-1]),
        "segm_head.segm_conv": (lambda k, n: [k], []),
    },
}


def dataset(names: tuple[str, ...]) -> SimpleNamespace:
    return SimpleNamespace(classes=names)


def checkpoint(name: str, file: Path, names: tuple[str, ...] | None = NAMES) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = models.create(name, weights=None).state_dict()
    for value in state.values():
        if value.is_floating_point():
            value.uniform_(0.001, 0.002)
    torch.save({"state_dict": state, "meta": {} if names is None else {"CLASSES": names}}, file)
    return state


@pytest.mark.parametrize("name", EXPECTED)
def test_a_subset_keeps_its_rows(tmp_path: Path, name: str, caplog) -> None:
    stored = checkpoint(name, tmp_path / "a.pth")
    model = models.create(name, num_classes=dataset(KEPT), weights=tmp_path / "a.pth")
    found = model.state_dict()
    layers = {key.rpartition(".")[0] for key in found if found[key].shape != stored[key].shape}
    assert layers == EXPECTED[name].keys()
    for key in found:
        if key.rpartition(".")[0] not in layers:
            assert torch.equal(found[key], stored[key]), key
            continue
        rows, shared = EXPECTED[name][key.rpartition(".")[0]]
        for label, old in enumerate((7, 3, 79)):
            assert torch.equal(found[key][rows(label, 3)], stored[key][rows(old, 80)]), key
        assert torch.equal(found[key][shared], stored[key][shared])
    assert "keep the rows of 3 classes" in caplog.text


def test_a_subset_predicts_what_the_whole_does(tmp_path: Path) -> None:
    """Sigmoid scores of a class do not depend on the others."""
    name = "retinanet_r50_fpn_1x_coco"
    checkpoint(name, tmp_path / "a.pth")
    whole = models.create(name, weights=tmp_path / "a.pth").eval()
    part = models.create(name, num_classes=dataset(KEPT), weights=tmp_path / "a.pth").eval()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        one = whole.bbox_head(whole.neck(whole.backbone(pixels)))[0]  # type: ignore[operator]
        other = part.bbox_head(part.neck(part.backbone(pixels)))[0]  # type: ignore[operator]
    for all_classes, some in zip(one, other):
        torch.testing.assert_close(some.unflatten(1, (9, 3)), all_classes.unflatten(1, (9, 80))[:, :, [7, 3, 79]])


def test_other_names_start_fresh_though_the_count_agrees(tmp_path: Path, caplog) -> None:
    name = "fcos_r50_caffe_fpn_gn-head_1x_coco"
    stored = checkpoint(name, tmp_path / "a.pth")
    others = (*(f"other{i}" for i in range(79)), "class5")
    found = models.create(name, num_classes=dataset(others), weights=tmp_path / "a.pth").state_dict()
    key = "bbox_head.conv_cls.weight"
    assert torch.equal(found[key][79], stored[key][5])
    assert not torch.equal(found[key][5], stored[key][5])
    assert "keep the rows of 1 classes" in caplog.text


def test_a_bare_count_starts_fresh_and_says_so(tmp_path: Path, caplog) -> None:
    name = "faster_rcnn_r50_fpn_1x_coco"
    stored = checkpoint(name, tmp_path / "a.pth", None)
    found = models.create(name, num_classes=3, weights=tmp_path / "a.pth").state_dict()
    assert found["roi_head.bbox_head.fc_cls.weight"].shape[0] == 4
    assert torch.equal(
        found["roi_head.bbox_head.shared_fcs.1.weight"], stored["roi_head.bbox_head.shared_fcs.1.weight"]
    )
    assert "80 classes, the model 3: the class layers start fresh" in caplog.text


def test_names_come_along(tmp_path: Path) -> None:
    checkpoint("fcos_r50_caffe_fpn_gn-head_1x_coco", tmp_path / "a.pth")
    assert models.create("fcos_r50_caffe_fpn_gn-head_1x_coco", weights=tmp_path / "a.pth").classes == NAMES


def test_a_subset_row_starts_from_the_whole(tmp_path: Path) -> None:
    """The published row of three classes takes its classes' rows from a checkpoint of all."""
    row = "faster_rcnn_r50_caffe_fpn_mstrain_1x_coco-person-bicycle-car"
    names = ("person", "bicycle", "car", *NAMES[3:])
    stored = checkpoint("faster_rcnn_r50_caffe_fpn_1x_coco", tmp_path / "a.pth", names)
    if row not in models.names():
        row = next(name for name, recipe in models.recipes().items() if recipe.classes == names[:3])
    found = models.create(row, weights=tmp_path / "a.pth").state_dict()
    key = "roi_head.bbox_head.fc_cls.weight"
    assert torch.equal(found[key], stored[key][[0, 1, 2, 80]])


def test_point_head_takes_columns_too() -> None:
    recipe = models.find_recipe("point_rend_r50_caffe_fpn_mstrain_1x_coco")
    layers = class_layers(recipe.build, 80)
    assert layers["roi_head.point_head.fcs.0.conv.weight"] == {1: (1, 256)}
    assert layers["roi_head.mask_head.fc_logits.weight"] == {0: (49, 0)}


def test_images_need_no_classes(tmp_path: Path) -> None:
    """Proposals know no classes: a checkpoint loads for any count."""
    stored = checkpoint("rpn_r50_fpn_1x_coco", tmp_path / "a.pth")
    model = models.create("rpn_r50_fpn_1x_coco", num_classes=5, weights=tmp_path / "a.pth").eval()
    assert all(torch.equal(value, stored[key]) for key, value in model.state_dict().items())
    with torch.no_grad():
        model.predict(ImageBatch(torch.randn(1, 3, 64, 64), [(64, 64)]))
