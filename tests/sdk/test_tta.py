"""Test-time augmentation through the verbs, on small detectors with random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sdk
from sdk import cli, models
from sdk.datasets import Shapes
from sdk.models import TTA

NAMES = ("retinanet_tiny_shapes", "mask_rcnn_tiny_shapes", "fcos_tiny")
FLIP = TTA(flips=("horizontal",))


@pytest.fixture(scope="module")
def detectors():
    made = {}
    for name in NAMES:
        torch.manual_seed(0)
        made[name] = models.create(name, num_classes=4, weights=None).eval()
        made[name].test.score_threshold = 0.0
        made[name].test.max_per_image = 20
    return made


@pytest.mark.parametrize("name", NAMES)
def test_the_image_as_it_is_gives_plain_prediction(detectors, name):
    image = Shapes(4)[1].image
    plain, same = (sdk.predict(image, detectors[name], tta=tta) for tta in (None, TTA()))
    assert len(plain)
    for field in ("boxes", "scores", "labels"):
        assert torch.equal(getattr(plain, field), getattr(same, field))
    assert (plain.masks is None) == (same.masks is None)
    assert plain.masks is None or torch.equal(plain.masks, same.masks)


@pytest.mark.parametrize("name", NAMES)
def test_the_mirrored_image_gives_mirrored_detections(detectors, name):
    image = Shapes(4, size=(80, 112))[2].image
    model = detectors[name]
    tta = TTA(scales=(0.5, 1.0), flips=("horizontal",))
    one, other = (sdk.predict(pixels, model, tta=tta) for pixels in (image, np.ascontiguousarray(image[:, ::-1])))
    assert len(one) == len(other) > 0
    torch.testing.assert_close(one.scores, other.scores)
    mirrored = other.boxes[:, [2, 1, 0, 3]] * torch.tensor([-1, 1, -1, 1]) + torch.tensor([112, 0, 112, 0])
    torch.testing.assert_close(one.boxes, mirrored, rtol=1e-4, atol=1e-2)
    assert torch.equal(one.labels, other.labels)
    if one.masks is not None:
        # Pixels at which the probability is the threshold may fall to either side.
        assert (one.masks == other.masks.flip(-1)).float().mean() > 0.99
    plain = sdk.predict(image, model)
    assert len(plain) != len(one) or not torch.equal(plain.scores, one.scores)


def test_scales_are_those_of_the_test_size(detectors):
    """One view at half the size is the recipe at half its size."""
    image = Shapes(4, size=(80, 112))[0].image
    model = detectors["retinanet_tiny_shapes"]
    seen = []
    hook = model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[2:]))
    found = sdk.predict(image, model, tta=TTA(scales=(0.5,)))
    sdk.predict(image, model)
    hook.remove()
    # 128 x 128 at most: 91 x 128 of 80 x 112 and 46 x 64 at half of it, padded to multiples of 32.
    assert [tuple(size) for size in seen] == [(64, 64), (96, 128)]
    assert float(found.boxes[:, 2].max()) <= 112
    assert float(found.boxes[:, 2].max()) > 64


def test_the_report_names_the_views(detectors, tmp_path):
    dataset = Shapes(4, size=(64, 64))
    model = detectors["mask_rcnn_tiny_shapes"]
    plain = sdk.evaluate(dataset, model, workers=0)
    assert plain.notes == sdk.evaluate(dataset, model, workers=0, tta=TTA()).notes
    report = sdk.evaluate(dataset, model, workers=0, batch_size=2, tta=TTA((1.0, 1.5), ("vertical",)), out=tmp_path)
    assert report.notes[-1] == "test-time augmentation: scales 1, 1.5; flips vertical"
    assert "flips vertical" in (tmp_path / "report.txt").read_text()
    assert report.counts.images == plain.counts.images


def test_a_recipe_that_was_scored_with_flips_is_tested_so(detectors):
    image = Shapes(4)[1].image
    model = models.create("retinanet_tiny_shapes", num_classes=4, weights=None).eval()
    model.load_state_dict(detectors["retinanet_tiny_shapes"].state_dict())
    model.test = detectors["retinanet_tiny_shapes"].test
    expected = sdk.predict(image, model, tta=FLIP)
    model.recipe = type(model.recipe)(**{**vars(model.recipe), "test_flip": True})
    found = sdk.predict(image, model)
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)
    alone = sdk.predict(image, model, tta=TTA())
    assert torch.equal(alone.scores, sdk.predict(image, detectors["retinanet_tiny_shapes"]).scores)


def test_command_line(detectors, tmp_path, capsys):
    run = sdk.fit(Shapes(4, size=(64, 64)), "retinanet_tiny_shapes", out=tmp_path / "run", workers=0, epochs=1)
    folder = str(Shapes(4, size=(64, 64)).write_coco(tmp_path / "data"))
    views = ["--scales", "1", "0.5", "--flips", "horizontal"]
    assert cli.main(["evaluate", folder, str(run.folder), "--workers", "0", *views]) == 0
    assert "scales 1, 0.5; flips horizontal" in capsys.readouterr().out
    image = str(sdk.datasets.Coco(folder).path(0))
    assert cli.main(["predict", image, "--model", str(run.folder), "--flips", "horizontal"]) == 0
    assert cli.main(["predict", image, "--model", str(run.folder), "--flips", "sideways"]) == 1
    assert "TTA.flips: expected some of horizontal" in capsys.readouterr().err
