"""One changed argument of a published configuration: the detector that is built differs, or the argument is refused."""

from __future__ import annotations

import gzip
import json
import random

import pytest
import torch
from comparing import differences

from sdk.models.mmdetection.building import detector_of, fingerprint, prepared, published_models
from sdk.models.mmdetection.reading import parse_config
from sdk.models.mmdetection.settings import ConfigError, Settings, from_plain, to_plain

METHODS = (
    "retinanet_r50_fpn_1x_coco", "faster_rcnn_r50_fpn_1x_coco", "mask_rcnn_r50_fpn_1x_coco",
    "cascade_mask_rcnn_r50_fpn_1x_coco", "htc_r50_fpn_1x_coco", "fcos_r50_caffe_fpn_gn-head_1x_coco",
    "atss_r50_fpn_1x_coco", "gfl_r50_fpn_1x_coco", "paa_r50_fpn_1x_coco", "vfnet_r50_fpn_1x_coco",
    "fsaf_r50_fpn_1x_coco", "fovea_align_r50_fpn_gn-head_4x4_2x_coco", "reppoints_moment_r50_fpn_1x_coco",
    "yolof_r50_c5_8x8_1x_coco", "yolov3_d53_mstrain-416_273e_coco", "ssd300_coco", "detr_r50_8x2_150e_coco",
    "deformable_detr_r50_16x2_50e_coco", "sparse_rcnn_r50_fpn_1x_coco", "ga_retinanet_r50_caffe_fpn_1x_coco",
    "libra_faster_rcnn_r50_fpn_1x_coco", "grid_rcnn_r50_fpn_gn-head_1x_coco", "ms_rcnn_r50_caffe_fpn_1x_coco",
    "point_rend_r50_caffe_fpn_mstrain_1x_coco", "mask_rcnn_r50_fpn_fp16_1x_coco",
    "faster_rcnn_r50_fpn_dconv_c3-c5_1x_coco", "sabl_cascade_rcnn_r50_fpn_1x_coco", "rpn_r50_fpn_1x_coco",
)  # fmt: skip
NO_PART = ("init_cfg", "pretrained", "teacher_config")


@pytest.fixture(scope="module")
def published(shared) -> dict[str, dict]:
    """The model settings of the published configurations, by name."""
    with gzip.open(shared / "mmdetection" / "configs.jsonl.gz", "rt") as file:
        rows = {row["name"]: row["config"] for row in map(json.loads, file) if row["name"] in METHODS}
    return {name: to_plain(prepared(parse_config(text, name))) for name, text in rows.items()}


def leaves(value, path=()):
    """The place of every argument that is no mapping below a value, the elements of lists of numbers included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        if key in NO_PART:
            continue
        if isinstance(one, (dict, list)):
            yield from leaves(one, (*path, key))
        else:
            yield (*path, key)


def changed(rng: random.Random, value):
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.choice((1, 2, 32) if value > 0 else (1, 2))
    if isinstance(value, float):
        return value * 1.5 if value else 0.25
    return {"nearest": "bilinear", "pytorch": "caffe", "caffe": "pytorch", "on_input": "on_output"}.get(value, "Other")


def passed(settings: Settings, path) -> bool:
    """Whether the argument was read as one of no effect, as the report of a conversion says of it."""
    owner = settings
    for key in path:
        if isinstance(owner, Settings) and key in owner.passed:
            return True
        owner = owner[key]
    return False


def require_honest(published, seed: int) -> str:
    """Changes one argument, and returns what became of it."""
    rng = random.Random(seed)
    name = METHODS[seed % len(METHODS)]
    original = json.loads(json.dumps(published[name]))
    place = rng.choice(list(leaves(original)))
    model = json.loads(json.dumps(original))
    owner = model
    for key in place[:-1]:
        owner = owner[key]
    before = owner[place[-1]]
    owner[place[-1]] = changed(rng, before)
    what = f"{name}: {'.'.join(map(str, place))}: {before!r} to {owner[place[-1]]!r}"
    settings = from_plain(model)
    with torch.device("meta"):
        try:
            made = detector_of(settings, None)
        except ConfigError:
            return "refused"
        if fingerprint(settings) in published_models():
            return "published"
        if passed(settings, place):
            return "of no effect"
        assert differences(made, detector_of(from_plain(original), None)), what
    return "built"


@pytest.mark.parametrize("seed", range(6))
def test_an_argument_is_built_or_refused(published, seed):
    require_honest(published, seed)


@pytest.mark.long
def test_arguments_are_built_or_refused(published):
    ends = [require_honest(published, seed) for seed in range(6, 126)]
    assert ends.count("built") >= 20
    assert ends.count("refused") >= 20
