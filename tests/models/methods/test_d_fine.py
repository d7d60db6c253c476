"""D-FINE beside the implementation in Hugging Face's ``transformers``."""

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
from sdk.models.assigners.base import BACKGROUND
from sdk.models.backbones.hgnet import SIZES
from sdk.models.methods.d_fine import agreed, bin_distances
from sdk.models.weights.huggingface import from_huggingface

transformers = pytest.importorskip("transformers")

# Backbone, and what of the oracle's configuration is not its default.
ROWS = {
    "n": (
        "b0",
        {
            "encoder_in_channels": [512, 1024],
            "feat_strides": [16, 32],
            "encoder_hidden_dim": 128,
            "encode_proj_layers": [1],
            "encoder_ffn_dim": 512,
            "hidden_expansion": 0.34,
            "depth_mult": 0.5,
            "decoder_in_channels": [128, 128],
            "d_model": 128,
            "decoder_ffn_dim": 512,
            "num_feature_levels": 2,
            "decoder_layers": 3,
            "decoder_n_points": [6, 6],
        },
    ),
    "s": (
        "b0",
        {
            "encoder_in_channels": [256, 512, 1024],
            "depth_mult": 0.34,
            "hidden_expansion": 0.5,
            "decoder_layers": 3,
        },
    ),
    "m": ("b2", {"encoder_in_channels": [384, 768, 1536], "depth_mult": 0.67, "decoder_layers": 4}),
    "l": ("b4", {}),
    "x": (
        "b5",
        {
            "encoder_hidden_dim": 384,
            "encoder_ffn_dim": 2048,
            "decoder_in_channels": [384] * 3,
            "reg_scale": 8.0,
        },
    ),
}


def oracle(size):
    """The reference model of a size, with random weights."""
    body, changes = ROWS[size]
    layout = SIZES[body]
    out = [stage[1] for stage in layout.stages]
    backbone = transformers.HGNetV2Config(
        hidden_sizes=out,
        stem_channels=[3, *layout.stem],
        stage_in_channels=[layout.stem[1], *out[:-1]],
        stage_mid_channels=[stage[0] for stage in layout.stages],
        stage_out_channels=out,
        stage_num_blocks=[stage[2] for stage in layout.stages],
        stage_numb_of_layers=[layout.layers] * 4,
        use_learnable_affine_block=size in "nsm",
        out_indices=[3, 4] if size == "n" else [2, 3, 4],
    )
    settings = {
        "decoder_n_points": [3, 6, 3],
        "backbone_config": backbone,
        "freeze_backbone_batch_norms": size in "lx",
        "num_labels": 80,
    }
    # Eager attention: the fused one misreads a mask of float32 beside float64 queries.
    config = transformers.DFineConfig(**{**settings, **changes}, attn_implementation="eager")
    return transformers.DFineForObjectDetection(config)


def ours(size):
    return models.create(f"dfine_hgnetv2_{size}_coco", weights=None)


def both(size):
    """The oracle and our row with its weights."""
    torch.manual_seed(0)
    theirs = oracle(size)
    # Constants that it keeps as weights.
    kept = {key: value.clone() for key, value in theirs.state_dict().items() if key.endswith((".up", ".reg_scale"))}
    scatter(theirs, norms=True)
    theirs.load_state_dict(kept, strict=False)
    for layer in theirs.model.decoder.layers:
        # One over the number of points, which it keeps in float32.
        attention = layer.encoder_attn
        attention.num_points_scale = 1 / (1 / attention.num_points_scale).round().to(torch.get_default_dtype())
    model = ours(size)
    same_weights(theirs, model)
    return theirs, model


@pytest.mark.parametrize("size", ROWS)
def test_every_size_has_the_same_state(size):
    with torch.device("meta"):
        theirs, model = from_huggingface(oracle(size).state_dict()), ours(size).state_dict()
    if size in "lx":
        # Frozen normalization of theirs does not count batches.
        model = {k: v for k, v in model.items() if not (k.startswith("backbone.") and k.endswith("batches_tracked"))}
    assert {k: tuple(v.shape) for k, v in theirs.items()} == {k: tuple(v.shape) for k, v in model.items()}


CASES = [
    pytest.param("n", torch.float64),
    pytest.param("s", torch.float32),
    *(pytest.param(size, dtype, marks=pytest.mark.long) for size in ROWS for dtype in TOLERANCE),
]


@pytest.mark.parametrize(("size", "dtype"), CASES)
@torch.no_grad()
def test_same_outputs(size, dtype):
    with default_dtype(dtype):
        theirs, model = both(size)
        theirs.eval(), model.eval()
        side = 256 if size == "n" else 128
        images = pixels(side, dtype)
        if dtype == torch.float32:
            # All places, for rounding decides which of two equal scores is the last.
            strides = theirs.config.feat_strides
            model.bbox_head.proposals.queries = theirs.config.num_queries = sum((side // s) ** 2 for s in strides)
        expected = theirs(images)
        found = model.outputs(image_batch(images))[0]
    assert_same_queries((found.logits[-1], found.boxes[-1]), (expected.logits, expected.pred_boxes), TOLERANCE[dtype])


@pytest.fixture
def in_one_precision(monkeypatch):
    """Parts of the oracle's sums are in float32, whatever the rest is in."""
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self.to(torch.get_default_dtype()))


@torch.no_grad()
def test_same_outputs_in_training(in_one_precision):
    with default_dtype(torch.float64):
        theirs, model = both("n")
        theirs.train(), model.train()
        images, targets = pixels(256, torch.float64), ground_truth(256, torch.float64)
        torch.manual_seed(5)
        expected = theirs(images, labels=their_labels(targets, 256))
        torch.manual_seed(5)
        noisy = model.bbox_head.noisy(image_batch(images), targets)
        found, proposed, first, repaired, repaired_first = model.outputs(image_batch(images), noisy)
    tolerance = {"rtol": 1e-9, "atol": 1e-9}
    for values, ours in (
        (expected.intermediate_logits, [(repaired_first.logits, first.logits), (repaired.logits, found.logits)]),
        (expected.intermediate_reference_points, [(repaired_first.boxes, first.boxes), (repaired.boxes, found.boxes)]),
        (expected.intermediate_predicted_corners, [(repaired.corners, found.corners)]),
    ):
        together = torch.cat([torch.cat(pair, dim=2) for pair in ours])
        torch.testing.assert_close(together.transpose(0, 1), values, **tolerance)
    torch.testing.assert_close(proposed.logits[0], expected.enc_topk_logits, **tolerance)


def indices(placed):
    """(B, Q) indices of objects as the oracle takes them."""
    return [((one != BACKGROUND).nonzero()[:, 0], one[one != BACKGROUND]) for one in placed]


@pytest.mark.parametrize(("size", "dtype"), CASES)
def test_same_losses_and_gradients(size, dtype, in_one_precision):
    """Every term by the oracle's own formulas, on our outputs and matches: its sums pair the classes of one layer with
    the distributions of the next, and it has no union of matches."""
    from transformers.loss.loss_d_fine import DFineLoss

    with default_dtype(dtype):
        theirs, model = both(size)
        model.train()
        side = 256 if size == "n" else 128
        images, targets = image_batch(pixels(side, dtype)), ground_truth(side, dtype)
        head, labels = model.bbox_head, their_labels(targets, side)
        torch.manual_seed(5)
        noisy = head.noisy(images, targets)
        outputs = model.outputs(images, noisy)
        losses = head.loss(outputs, images, targets, noisy)
        found, proposed, first, repaired, repaired_first = outputs
        criterion = DFineLoss(theirs.config)
        sizes = torch.full((2, 4), float(side))
        sets = [
            *zip(found.logits, found.boxes),
            (first.logits[0], first.boxes[0]),
            (proposed.logits[0], proposed.boxes[0]),
        ]
        pixel_boxes = torch.stack([boxes for _, boxes in sets])
        pixel_boxes = (
            torch.cat(
                (pixel_boxes[..., :2] - pixel_boxes[..., 2:] / 2, pixel_boxes[..., :2] + pixel_boxes[..., 2:] / 2), -1
            )
            * side
        )
        matched = head.set_loss.matcher(torch.stack([logits for logits, _ in sets]), pixel_boxes, sizes, targets)
        expected = {}

        def terms(prefix, logits, boxes, own, placed, count, corners=None, start=None, teacher=None):
            outputs = {"logits": logits, "pred_boxes": boxes}
            names = {"loss_vfl": "loss_cls", "loss_bbox": "loss_bbox", "loss_giou": "loss_iou"}
            values = criterion.loss_labels_vfl(outputs, labels, indices(own), max(float((own != BACKGROUND).sum()), 1))
            values |= criterion.loss_boxes(outputs, labels, indices(placed), count)
            if corners is not None:
                outputs |= {"pred_corners": corners, "ref_points": start, "teacher_corners": teacher[1]}
                outputs["teacher_logits"] = teacher[0]
                values |= criterion.loss_local(outputs, labels, indices(placed), count)
                names |= {"loss_fgl": "loss_fgl", "loss_ddf": "loss_ddf"}
            for theirs_name, name in names.items():
                expected[prefix + name] = values[theirs_name] * criterion.weight_dict[theirs_name]

        union = agreed(matched)
        count = max(float((union != BACKGROUND).sum()), 1)
        depths = len(found.logits)
        prefixes = [f"d{depth}." for depth in range(depths - 1)] + ["", "pre_", "enc_"]
        for depth, (prefix, (logits, boxes)) in enumerate(zip(prefixes, sets, strict=True)):
            local = (
                (found.corners[depth], found.start[0], (found.logits[-1], found.corners[-1])) if depth < depths else ()
            )
            terms(prefix, logits, boxes, matched[depth], union, count, *local)
        count = max(float((noisy.objects != BACKGROUND).sum()), 1)
        for depth in range(depths):
            local = (repaired.corners[depth], repaired.start[0], (repaired.logits[-1], repaired.corners[-1]))
            own = (repaired.logits[depth], repaired.boxes[depth], noisy.objects, noisy.objects)
            terms("dn_" + prefixes[depth], *own, count, *local)
        terms("dn_pre_", repaired_first.logits[0], repaired_first.boxes[0], noisy.objects, noisy.objects, count)
        # A layer learns nothing from itself.
        for name in ("loss_ddf", "dn_loss_ddf"):
            assert float(expected.pop(name).detach()) == 0
        assert expected.keys() == losses.keys()
        for name, value in losses.items():
            torch.testing.assert_close(value, expected[name], rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], msg=name)
        sum(expected.values()).backward(retain_graph=True)
        wanted = gradients(model)
        wanted = {name: value.clone() for name, value in wanted.items()}
        model.zero_grad()
        sum(losses.values()).backward()
        found = gradients(model)
        assert wanted.keys() == found.keys()
        largest = max(value.abs().max() for value in wanted.values())
        for name, value in found.items():
            scale = max(wanted[name].abs().max(), largest * (1e-4 if dtype == torch.float64 else 1e-1))
            torch.testing.assert_close(
                value / scale, wanted[name] / scale, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], msg=name
            )


def test_the_object_that_most_give_a_query_is_its():
    matched = torch.full((3, 1, 4), BACKGROUND)
    matched[0, 0] = torch.tensor([0, BACKGROUND, 1, BACKGROUND])
    matched[1, 0] = torch.tensor([1, 0, 1, BACKGROUND])
    matched[2, 0] = torch.tensor([1, BACKGROUND, BACKGROUND, BACKGROUND])
    assert agreed(matched).tolist() == [[1, 0, 1, BACKGROUND]]
    assert agreed(torch.full((2, 1, 3), BACKGROUND)).tolist() == [[BACKGROUND] * 3]


def test_bins_are_those_of_the_oracle():
    from transformers.loss.loss_d_fine import weighting_function

    for scale in (4.0, 8.0):
        expected = weighting_function(32, torch.tensor([0.5], dtype=torch.float64), scale)
        torch.testing.assert_close(bin_distances(scale), expected)
