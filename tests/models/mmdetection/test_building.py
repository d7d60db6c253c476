"""Detectors that are built from configurations: equal to those of our own builders, or refused by name."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace
from functools import partial

import pytest
import torch
from comparing import differences

from sdk.models import find_recipe
from sdk.models.assigners import MaxIoUAssigner
from sdk.models.backbones.resnet import ResNet
from sdk.models.detectors.single_stage import SingleStageDetector
from sdk.models.losses import FocalLoss, GIoULoss
from sdk.models.methods.retinanet import RetinaHead
from sdk.models.mmdetection.building import detector_of, prepared, recipe_of
from sdk.models.mmdetection.reading import parse_config
from sdk.models.mmdetection.settings import ConfigError, Settings, from_plain, to_plain
from sdk.models.necks.fpn import FPN
from sdk.models.priors import anchor_grid
from sdk.models.settings import DenseTest, SoftNMS

SAMPLE = (
    "retinanet_r50_fpn_1x_coco",
    "faster_rcnn_r50_caffe_fpn_mstrain_3x_coco",
    "mask_rcnn_r50_fpn_1x_coco",
    "cascade_mask_rcnn_r50_fpn_1x_coco",
    "fcos_center-normbbox-centeronreg-giou_r50_caffe_fpn_gn-head_dcn_1x_coco",
    "atss_r50_fpn_1x_coco",
    "gfl_r50_fpn_1x_coco",
    "paa_r50_fpn_1x_coco",
    "vfnet_r50_fpn_mdconv_c3-c5_mstrain_2x_coco",
    "ssd300_coco",
    "yolov3_d53_mstrain-416_273e_coco",
    "fsaf_r50_fpn_1x_coco",
    "htc_r50_fpn_1x_coco",
    "rpn_r50_fpn_1x_coco",
)
COMPARED = (
    "preprocessing", "train_transforms", "sampling", "images_per_device", "optimizer", "schedule", "precision",
    "sync_batch_norm", "test_flip", "needs_masks", "needs_semantic", "needs_proposals",
)  # fmt: skip
UNTRANSLATED = {"mask_rcnn_r50_fpn_albu_1x_coco": ("train_transforms",)}
"""Augmentation by albumentations: said, and left out."""


@pytest.fixture(scope="module")
def published(shared) -> dict[str, str]:
    """The text of the published configurations, by name."""
    with gzip.open(shared / "mmdetection" / "configs.jsonl.gz", "rt") as file:
        return {row["name"]: row["config"] for row in map(json.loads, file)}


def require_equal_to_zoo(name: str, text: str) -> None:
    with torch.device("meta"):
        made, faults = recipe_of(parse_config(text, name), name)
        recipe = find_recipe(name)
        ours, theirs = made.build(None), recipe.build(recipe.num_classes)  # type: ignore[arg-type]
    assert differences(ours, theirs) == []
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }
    left = UNTRANSLATED.get(name, ())
    assert bool(faults) == bool(left)
    for field in COMPARED:
        if field not in left:
            assert differences(getattr(made, field), getattr(recipe, field), field) == []


@pytest.mark.parametrize("name", SAMPLE)
def test_published_configurations_are_the_rows_of_the_zoo(published, name):
    require_equal_to_zoo(name, published[name])


@pytest.mark.long
def test_all_published_configurations_are_the_rows_of_the_zoo(published):
    for name, text in published.items():
        require_equal_to_zoo(name, text)


def mappings(value, path=()):
    """The place of every mapping below a value."""
    if isinstance(value, dict):
        yield path
        for key, one in value.items():
            yield from mappings(one, (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            yield from mappings(one, (*path, index))


@pytest.mark.parametrize("name", SAMPLE[:-2])
def test_an_argument_that_is_not_known_is_never_ignored(published, name):
    plain = to_plain(prepared(parse_config(published[name], name)))
    places = [path for path in mappings(plain) if "init_cfg" not in path and "train_cfg" not in path[:1]]
    for place in random.Random(0).sample(places, min(6, len(places))):
        changed = json.loads(json.dumps(plain))
        owner = changed
        for key in place:
            owner = owner[key]
        owner["surprise"] = 7
        with torch.device("meta"), pytest.raises(ConfigError, match="surprise = 7"):
            detector_of(from_plain(changed), None)


def retinanet(rng: random.Random) -> tuple[dict, SingleStageDetector]:
    """A RetinaNet with drawn numbers: its settings, and the same built by hand."""
    width, classes = rng.choice((16, 32)), rng.randint(1, 5)
    depth, base, per_octave = rng.choice((18, 34)), rng.choice((2, 3, 4)), rng.choice((1, 2, 3))
    ratios, stacked = rng.choice(([1.0], [0.5, 1.0, 2.0])), rng.randint(1, 3)
    start, extra = rng.choice((0, 1)), rng.choice(("on_input", "on_lateral", "on_output", False))
    positive, frozen = rng.choice((0.5, 0.6)), rng.choice((-1, 1))
    strides, decoded = [2 ** (2 + start + level) for level in range(5)], rng.random() < 0.5
    threshold, soft, trainable = rng.uniform(0.01, 0.1), rng.random() < 0.5, rng.random() < 0.5
    channels = tuple(width * 2**stage for stage in range(4))
    nms = (
        {"type": "soft_nms", "iou_threshold": 0.4, "min_score": 0.02} if soft else {"type": "nms", "iou_threshold": 0.4}
    )
    loss = {"type": "GIoULoss", "loss_weight": 2.0} if decoded else {"type": "L1Loss", "loss_weight": 1.0}
    settings = {
        "type": "RetinaNet",
        "backbone": {
            "type": "ResNet", "depth": depth, "base_channels": width, "frozen_stages": frozen,
            "norm_cfg": {"type": "BN", "requires_grad": trainable},
        },
        "neck": {
            "type": "FPN", "in_channels": channels, "out_channels": 64, "start_level": start, "num_outs": 5,
            "add_extra_convs": extra,
        },
        "bbox_head": {
            "type": "RetinaHead", "num_classes": classes, "in_channels": 64, "feat_channels": 32,
            "stacked_convs": stacked, "reg_decoded_bbox": decoded,
            "anchor_generator": {
                "type": "AnchorGenerator", "octave_base_scale": base, "scales_per_octave": per_octave,
                "ratios": ratios, "strides": strides,
            },
            "bbox_coder": {"type": "DeltaXYWHBBoxCoder"},
            "loss_cls": {"type": "FocalLoss", "use_sigmoid": True, "gamma": 1.5, "alpha": 0.3},
            "loss_bbox": loss,
        },
        "train_cfg": {
            "assigner": {"type": "MaxIoUAssigner", "pos_iou_thr": positive, "neg_iou_thr": 0.4, "min_pos_iou": 0.1},
            "allowed_border": -1, "pos_weight": -1, "debug": False,
        },
        "test_cfg": {"nms_pre": 700, "min_bbox_size": 0, "score_thr": threshold, "nms": nms, "max_per_img": 50},
    }  # fmt: skip
    norm = ResNet.__init__.__kwdefaults__["norm"]  # type: ignore[attr-defined]
    body = ResNet(depth, base_channels=width, frozen_stages=frozen, norm=replace(norm, trainable=trainable))
    kind = {"on_input": "input", "on_lateral": "lateral", "on_output": "output", False: "pool"}[extra]
    head = RetinaHead(
        num_classes=classes,
        in_channels=64,
        channels=32,
        depth=stacked,
        anchors=anchor_grid(strides, scales=[base * 2 ** (i / per_octave) for i in range(per_octave)], ratios=ratios),
        assigner=MaxIoUAssigner(positive=positive, negative=0.4, min_positive=0.1),
        class_loss=FocalLoss(gamma=1.5, alpha=0.3),
        box_loss=GIoULoss(weight=2.0) if decoded else None,
    )
    test = DenseTest(threshold, 0.4, 50, 700, SoftNMS(min_score=0.02) if soft else None)
    neck = FPN(channels, 64, start=start, extra=kind, num_outs=5)
    return settings, SingleStageDetector(backbone=body, neck=neck, bbox_head=head, test=test)


@pytest.mark.parametrize("seed", range(12))
def test_other_numbers_give_what_our_own_builder_gives(seed):
    with torch.device("meta"):
        settings, expected = retinanet(random.Random(seed))
        made = detector_of(from_plain(settings), None)
    assert differences(made, expected) == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("neck", "type"), "MyNeck", "model.neck.type = 'MyNeck': expected FPN"),
        (("backbone", "depth"), 42, "cannot be built: ValueError: ResNet depth"),
        (("neck", "in_channels"), [1, 2, 3, 4], "neck.in_channels = .*the backbone gives"),
        (("bbox_head", "loss_cls", "class_weight"), [1, 2], "class_weight"),
        (("test_cfg", "min_bbox_size"), 5, "min_bbox_size = 5"),
        (("test_cfg", "nms", "class_agnostic"), True, "class_agnostic = True"),
        (("bbox_head", "reg_decoded_bbox"), "both", "reg_decoded_bbox"),
        (("train_cfg", "allowed_border"), 5, "allowed_border = 5"),
        (("bbox_head", "train_cfg"), {"other": 1}, "differs from model.train_cfg"),
    ],
)
def test_what_is_not_translated_is_refused_by_name(path, value, message):
    settings, _ = retinanet(random.Random(1))
    owner = settings
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    config = Settings({"model": from_plain(settings)})
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        detector_of(prepared(config), None)


def test_another_class_count():
    settings, expected = retinanet(random.Random(2))
    build = partial(detector_of, from_plain(settings))
    assert build(7).num_classes == 7
    assert build(None).num_classes == expected.num_classes


THIRD = """
default_scope = 'mmdet'
model = dict(
    type='FCOS',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[102.9801, 115.9465, 122.7717], std=[1.0, 1.0, 1.0], bgr_to_rgb=False,
        pad_size_divisor=32),
    backbone=dict(type='mmdet.ResNet', depth=18, base_channels=16, norm_cfg=dict(type='BN', requires_grad=False),
        style='caffe', init_cfg=dict(type='Pretrained', checkpoint='x')),
    neck=dict(type='FPN', in_channels=[16, 32, 64, 128], out_channels=64, start_level=1, add_extra_convs='on_output',
        num_outs=5, relu_before_extra_convs=True),
    bbox_head=dict(type='FCOSHead', num_classes=3, in_channels=64, stacked_convs=2, feat_channels=64,
        strides=[8, 16, 32, 64, 128],
        norm_cfg=dict(type='GN', num_groups=16, requires_grad=True),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='IoULoss', loss_weight=1.0),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)),
    test_cfg=dict(nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=100))
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomChoiceResize', scales=[(1333, 640), (1333, 800)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(640, 480), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs', meta_keys=('img_id',))]
train_dataloader = dict(batch_size=4, num_workers=2, dataset=dict(type='RepeatDataset', times=2, dataset=dict(
    type='CocoDataset', metainfo=dict(classes=('a', 'b', 'c')), pipeline=train_pipeline)))
test_dataloader = dict(batch_size=1, dataset=dict(type='CocoDataset', metainfo=dict(classes=('a', 'b', 'c')),
    pipeline=test_pipeline))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=24, val_interval=1)
optim_wrapper = dict(type='AmpOptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001),
    paramwise_cfg=dict(bias_lr_mult=2.0, bias_decay_mult=0.0), clip_grad=dict(max_norm=35, norm_type=2))
param_scheduler = [dict(type='ConstantLR', factor=1.0 / 3, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=24, by_epoch=True, milestones=[16, 22], gamma=0.1)]
auto_scale_lr = dict(enable=False, base_batch_size=16)
"""


def test_the_words_of_the_third_version():
    recipe, faults = recipe_of(parse_config(THIRD, "fcos.py"), "fcos")
    assert faults == []
    assert recipe.classes == ("a", "b", "c")
    pixels = recipe.preprocessing
    assert (pixels.size, pixels.channels, pixels.divisor) == ((640, 480), "bgr", 32)
    assert pixels.mean == (102.9801, 115.9465, 122.7717)
    assert (recipe.images_per_device, recipe.devices, recipe.precision) == (4, 4, "16")
    assert (recipe.schedule.epochs, recipe.schedule.drops, recipe.schedule.warmup) == (24, (16, 22), "constant")
    assert (recipe.optimizer.clip_norm, recipe.optimizer.bias_lr_factor) == (35.0, 2.0)
    assert recipe.sampling.repeats == 2
    model = recipe.build(3)
    assert model.bbox_head.cls_convs[1].gn.num_groups == 16  # type: ignore[attr-defined]


def test_missing_parts_are_named():
    with pytest.raises(ConfigError, match="expected model"):
        recipe_of(parse_config("x = 1\n", "own.py"), "own")
    settings, _ = retinanet(random.Random(3))
    with pytest.raises(ConfigError, match="how images are prepared"):
        recipe_of(Settings({"model": from_plain(settings)}), "own")
