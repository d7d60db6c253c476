"""Files in older layouts, written from a current model with names spelled out, load to the identical state."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdk import models
from sdk.models.detectors.base import Detector
from sdk.models.structures import ImageBatch
from sdk.models.weights import WeightsError, load_weights

State = dict[str, Tensor]


def renamed(*pairs: tuple[str, str]) -> Callable[[State], State]:
    """Older names by regular expressions for today's; each must occur."""

    def older(state: State) -> State:
        for pattern, _ in pairs:
            assert any(re.search(pattern, key) for key in state), pattern
        result = {}
        for key, value in state.items():
            for pattern, old in pairs:
                key = re.sub(pattern, old, key)
            result[key] = value
        return result

    return older


def ssd(state: State) -> State:
    """Extra layers numbered through, in the backbone."""
    result = {}
    for key, value in state.items():
        if match := re.fullmatch(r"neck\.extra_layers\.(\d)\.(\d)\.conv\.(\w+)", key):
            key = f"backbone.extra.{2 * int(match[1]) + int(match[2])}.{match[3]}"
        key = key.replace("neck.l2_norm", "backbone.l2_norm")
        result[re.sub(r"(_convs\.\d)\.0\.", r"\1.", key)] = value
    assert "backbone.extra.7.weight" in result
    assert "bbox_head.cls_convs.5.bias" in result
    return result


def background_first(state: State) -> State:
    """Two-stage heads of 1.x at the top, softmax and everything per class with the background as class 0."""
    result = {}
    for key, value in state.items():
        if "fc_cls" in key:
            value = torch.stack([value[-1], *value[:-1]])
        elif ("fc_reg" in key and len(value) == 320) or "conv_logits" in key or "fc_mask_iou" in key:
            background = 4 if "fc_reg" in key else 1
            value = torch.cat([torch.full((background, *value.shape[1:]), 7.0), value])
        result[key.removeprefix("roi_head.")] = value
    assert any(key.startswith("bbox_head.") and "fc_cls" in key and len(value) == 81 for key, value in result.items())
    return result


def ssd_of_1x(state: State) -> State:
    """As ``ssd``, with the background as class 0 of every anchor."""
    result = ssd(state)
    for key, value in result.items():
        if "cls_convs" in key:
            anchors = value.shape[0] // 81
            rows = [81 * a + k for a in range(anchors) for k in (80, *range(80))]
            result[key] = value[rows]
    return result


CASES: list[tuple[str, Callable[[State], State], str]] = [
    ("ssd300_coco", ssd, "2.1.0"),
    ("ssd512_coco", ssd, "2.1.0"),
    ("ssd300_coco", ssd_of_1x, "0.5.3"),
    ("detr_r50_8x2_150e_coco", renamed(
        (r"(encoder\.layers\.\d)\.attentions\.0", r"\1.self_attn"),
        (r"(decoder\.layers\.\d)\.attentions\.0", r"\1.self_attn"),
        (r"(decoder\.layers\.\d)\.attentions\.1", r"\1.multihead_attn"),
        (r"\.ffns\.0\.", ".ffn."), (r"decoder\.post_norm", "decoder.norm"),
    ), "2.7.0"),
    ("yolact_r50_1x8_coco", renamed(
        (r"^segm_head\.", "bbox_head.segm_head."), (r"^mask_head\.protonet", "bbox_head.protonet")), "2.3.0"),
    ("yolact_r50_1x8_coco", renamed((r"^segm_head\.", "mask_head.segm_branch.")), "3.0.0"),
    ("fcos_r50_caffe_fpn_gn-head_1x_coco", renamed((r"conv_(cls|reg|centerness)\.", r"fcos_\1.")), "2.0.0"),
    ("fovea_r50_fpn_4x4_1x_coco", renamed((r"conv_(cls|reg)\.", r"fovea_\1.")), "2.0.0"),
    ("retinanet_r50_fpn_1x_coco", renamed((r"((?:cls|reg)_convs\.\d)\.conv\.", r"\1.")), "0.5.2"),
    ("faster_rcnn_r50_fpn_1x_coco", background_first, "1.0.0"),
    ("faster_rcnn_r50_fpn_1x_coco", background_first, ""),
    ("fast_rcnn_r50_fpn_1x_coco", background_first, "1.2.0"),
    ("mask_rcnn_r50_fpn_1x_coco", background_first, "0.5.0"),
    ("cascade_mask_rcnn_r50_fpn_1x_coco", background_first, "0.5.0"),
    ("ms_rcnn_r50_caffe_fpn_1x_coco", background_first, "1.0.0"),
    ("faster_rcnn_r50_fpn_dconv_c3-c5_1x_coco", renamed((r"conv2\.conv_offset\.", "conv2_offset.")), "0.6.0"),
]  # fmt: skip


def distinct(name: str) -> Detector:
    """A row whose entries all differ, at random."""
    torch.manual_seed(0)
    model = models.create(name, weights=None)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.uniform_(-0.5, 0.5)
    return model


@pytest.mark.parametrize(("name", "older", "version"), CASES)
def test_older_layout_gives_the_identical_state(
    tmp_path: Path, name: str, older: Callable[[State], State], version: str
) -> None:
    expected = distinct(name).state_dict()
    meta = {"mmdet_version": version} if version else {}
    file = tmp_path / "older.pth"
    torch.save({"state_dict": older(dict(expected)), "meta": meta}, file)
    model = models.create(name, weights=file)
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert not [key for key in expected if not torch.equal(found[key], expected[key])]


def test_older_layout_predicts_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = models.create("faster_rcnn_r50_fpn_1x_coco", weights=None).eval()
    model.test.score_threshold = 0.0
    torch.save({"state_dict": background_first(dict(model.state_dict()))}, tmp_path / "a.pth")
    again = models.create("faster_rcnn_r50_fpn_1x_coco", weights=tmp_path / "a.pth").eval()
    again.test.score_threshold = 0.0
    images = ImageBatch(torch.randn(1, 3, 64, 64), [(64, 64)])
    with torch.no_grad():
        one, other = model.predict(images)[0], again.predict(images)[0]
    assert len(one.scores) > 0
    assert torch.equal(one.scores, other.scores)
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(one.boxes, other.boxes)


def test_unknown_and_missing_entries_are_listed(tmp_path: Path) -> None:
    state = distinct("fcos_r50_caffe_fpn_gn-head_1x_coco").state_dict()
    recipe = models.find_recipe("fcos_r50_caffe_fpn_gn-head_1x_coco")
    model = models.create(recipe.name, weights=None)
    wrong = {key.replace("neck.lateral_convs.0", "neck.laterals.0"): value for key, value in state.items()}
    torch.save(wrong, tmp_path / "wrong.pth")
    with pytest.raises(
        WeightsError, match=r"wrong.pth.*neck\.laterals\.0\.conv\.weight \(closest: neck\.lateral_convs\.0\.c"
    ):
        load_weights(model, recipe, tmp_path / "wrong.pth")
    del state["neck.lateral_convs.0.conv.bias"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(WeightsError, match=r"short.pth: lacks 1 entries .*: neck\.lateral_convs\.0\.conv\.bias"):
        load_weights(model, recipe, tmp_path / "short.pth")
    with pytest.raises(WeightsError, match="no such file"):
        load_weights(model, recipe, tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match="https"):
        load_weights(model, recipe, "http://host/a.pth")
