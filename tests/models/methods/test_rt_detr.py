"""RT-DETR beside the implementation in Hugging Face's ``transformers``."""

import pytest
import torch
from huggingface import (
    TOLERANCE,
    assert_same_queries,
    default_dtype,
    gradients,
    ground_truth,
    image_batch,
    pixels,
    same_weights,
    scatter,
    their_labels,
)

from sdk import models
from sdk.models.weights.huggingface import from_huggingface

transformers = pytest.importorskip("transformers")

DEPTHS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}
LAYERS = {18: 3, 34: 4, 50: 6, 101: 6}
V1 = {depth: f"rtdetr_r{depth}vd_6x_coco" for depth in DEPTHS}
V2 = {
    18: "rtdetrv2_r18vd_120e_coco",
    34: "rtdetrv2_r34vd_120e_coco",
    50: "rtdetrv2_r50vd_6x_coco",
    101: "rtdetrv2_r101vd_6x_coco",
}


def oracle(depth, version=1, **changes):
    """The reference model of a size, with random weights."""
    basic, wide = depth < 50, depth == 101
    channels = [64, 128, 256, 512] if basic else [256, 512, 1024, 2048]
    body = transformers.RTDetrResNetConfig(
        depths=DEPTHS[depth],
        hidden_sizes=channels,
        layer_type="basic" if basic else "bottleneck",
        out_indices=[2, 3, 4],
    )
    config, build = (
        (transformers.RTDetrConfig, transformers.RTDetrForObjectDetection)
        if version == 1
        else (transformers.RTDetrV2Config, transformers.RTDetrV2ForObjectDetection)
    )
    width = 384 if wide else 256
    settings = {
        "backbone_config": body,
        "encoder_in_channels": channels[1:],
        "encoder_hidden_dim": width,
        "encoder_ffn_dim": 2048 if wide else 1024,
        "decoder_in_channels": [width] * 3,
        "hidden_expansion": 0.5 if basic else 1.0,
        "decoder_layers": LAYERS[depth],
        "freeze_backbone_batch_norms": not basic,
        "num_labels": 80,
    }
    # Eager attention: the fused one misreads a mask of float32 beside float64 queries.
    return build(config(**{**settings, **changes}, attn_implementation="eager"))


def both(depth, version=1, **changes):
    """The oracle and our row with its weights."""
    torch.manual_seed(0)
    theirs = oracle(depth, version, **changes)
    scatter(theirs)
    ours = models.create((V1 if version == 1 else V2)[depth], weights=None)
    same_weights(theirs, ours)
    return theirs, ours


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("depth", DEPTHS)
def test_every_size_has_the_same_state(depth, version):
    with torch.device("meta"):
        theirs = oracle(depth, version).state_dict()
        # Frozen normalization of theirs does not count batches.
        ours = {
            key: value
            for key, value in models.create((V1 if version == 1 else V2)[depth], weights=None).state_dict().items()
            if depth < 50 or not (key.startswith("backbone.") and key.endswith("num_batches_tracked"))
        }
    assert {k: tuple(v.shape) for k, v in from_huggingface(theirs).items()} == {
        k: tuple(v.shape) for k, v in ours.items()
    }


CASES = [
    pytest.param(18, 1, torch.float64),
    pytest.param(50, 2, torch.float32),
    *(pytest.param(depth, v, d, marks=pytest.mark.long) for depth in DEPTHS for v in (1, 2) for d in TOLERANCE),
]


@pytest.mark.parametrize(("depth", "version", "dtype"), CASES)
@torch.no_grad()
def test_same_outputs(depth, version, dtype):
    with default_dtype(dtype):
        theirs, ours = both(depth, version)
        theirs.eval(), ours.eval()
        side = 128
        images = pixels(side, dtype)
        if dtype == torch.float32:
            # All places, for rounding decides which of two equal scores is the last.
            places = sum((side // stride) ** 2 for stride in theirs.config.feat_strides)
            ours.bbox_head.proposals.queries = theirs.config.num_queries = places
        expected = theirs(images)
        found = ours.outputs(image_batch(images))[0]
    for depth, (logits, boxes) in enumerate(zip(found.logits, found.boxes, strict=True)):
        theirs_there = (expected.intermediate_logits[:, depth], expected.intermediate_reference_points[:, depth])
        assert_same_queries((logits, boxes), theirs_there, TOLERANCE[dtype])


TERMS = {"loss_cls": "loss_vfl", "loss_bbox": "loss_bbox", "loss_iou": "loss_giou"}


def their_names(layers):
    """Each of our loss terms by the oracle's name."""
    sets = {"": "", "enc_": f"_aux_{layers - 1}", "dn_": f"_dn_{layers - 1}"}
    for layer in range(layers - 1):
        sets[f"d{layer}."] = f"_aux_{layer}"
        sets[f"dn_d{layer}."] = f"_dn_{layer}"
    return {ours + a: b + theirs for ours, theirs in sets.items() for a, b in TERMS.items()}


@pytest.mark.parametrize(("depth", "version", "dtype"), CASES)
@pytest.mark.parametrize("counts", [(3, 1), pytest.param((2, 0), marks=pytest.mark.long)])
def test_same_losses_and_gradients(depth, version, dtype, counts):
    with default_dtype(dtype):
        theirs, ours = both(depth, version)
        theirs.train(), ours.train()
        # The oracle trains the whole backbone.
        ours.backbone.frozen_stages = -1
        ours.backbone.requires_grad_(True)
        images, targets = pixels(128, dtype), ground_truth(128, dtype, counts)
        torch.manual_seed(5)
        expected = theirs(images, labels=their_labels(targets, 128))
        torch.manual_seed(5)
        losses = ours(image_batch(images), targets)
        expected.loss.backward()
        sum(losses.values()).backward()
    names = their_names(LAYERS[depth])
    assert names.keys() == losses.keys()
    assert set(names.values()) == expected.loss_dict.keys()
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    for name, value in losses.items():
        torch.testing.assert_close(
            value, expected.loss_dict[names[name]], msg=lambda m, n=name: f"{n}: {m}", **tolerance
        )
    wanted, found = from_huggingface(gradients(theirs)), gradients(ours)
    if depth >= 50:
        # Theirs has no weights of frozen normalization that could have a gradient.
        found = {name: value for name, value in found.items() if name in wanted}
    assert wanted.keys() == found.keys()
    largest = max(value.abs().max() for value in wanted.values())
    for name, value in found.items():
        # Rounding is relative to the sums in which a gradient is made.
        scale = max(wanted[name].abs().max(), largest * (1e-4 if dtype == torch.float64 else 1e-1))
        torch.testing.assert_close(value / scale, wanted[name] / scale, msg=lambda m, n=name: f"{n}: {m}", **tolerance)
