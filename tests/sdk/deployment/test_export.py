"""Exported files find what the detector finds, at sizes and counts that the export did not see."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import sdk
from sdk import cli
from sdk.datasets import Shapes
from sdk.datasets.transforms import Preprocessing
from sdk.deployment.resizing import ResizeAndNormalize
from sdk.errors import RunError, SdkError
from sdk.models.settings import SoftNMS


def detector(name):
    torch.manual_seed(0)
    model = sdk.models.create(name, num_classes=4, weights=None).eval()
    model.classes = ("circle", "square", "triangle", "cross")
    model.test.score_threshold = 0.0
    # Fresh classifiers score everything alike, so that rounding would decide which box suppresses which.
    for key, weight in model.named_parameters():
        if key in ("bbox_head.retina_cls.weight", "bbox_head.conv_cls.weight"):
            weight.data *= 30
    return model


@pytest.fixture(scope="module", params=[("retinanet_tiny_shapes", "onnx"), ("fcos_tiny", "onnx"), ("fcos_tiny", "pt2")])
def exported(request, tmp_path_factory):
    name, suffix = request.param
    if suffix == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    model = detector(name)
    return model, sdk.export(model, tmp_path_factory.mktemp("exported") / f"model.{suffix}")


def require_equal(found, expected):
    assert len(found) == len(expected) > 0
    assert torch.equal(found.labels.bincount(minlength=4), expected.labels.bincount(minlength=4))
    for label in expected.labels.unique():
        ours, theirs = (one.boxes[one.labels == label] for one in (expected, found))
        # Equal scores may change places.
        assert (torch.cdist(ours, theirs, p=float("inf")).amin(dim=1) < 0.05).all()
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(150, 200), (97, 133), (240, 130)])
def test_files_find_what_the_detector_finds(exported, size):
    model, path = exported
    images = [Shapes(8, size=size)[index].image for index in range(2)]
    for expected, found in zip(sdk.predict(images, model), sdk.predict(images, path)):
        require_equal(found, expected)
        assert set(found.names) <= {"circle", "square", "triangle", "cross"}


@pytest.mark.parametrize("count", [1, 3])
def test_batches_of_other_numbers_and_padding(exported, count):
    model, path = exported
    images = [Shapes(8, size=(120, 170))[index].image for index in range(count)]
    call = sdk.results.run.load(path).model.call
    boxes, scores, labels, counts = call(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous())
    assert boxes.shape == (count, 100, 4)
    for index, expected in enumerate(sdk.predict(images, model)):
        own = int(counts[index])
        assert own == len(expected)
        torch.testing.assert_close(scores[index, :own], expected.scores, rtol=0, atol=1e-5)
        assert (labels[index, own:] == -1).all()


@pytest.mark.parametrize(("suffix", "most"), [("pt2", 0), ("pt2", 1), ("onnx", 0)])
def test_none_and_one_found(tmp_path, suffix, most):
    if suffix == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    model = detector("retinanet_tiny_shapes")
    image = Shapes(1)[0].image
    best = sdk.predict(image, model).scores
    model.test.score_threshold = 0.999 if most == 0 else float(best[:2].mean())
    path = sdk.export(model, tmp_path / f"model.{suffix}")
    assert len(sdk.predict(image, path)) == len(sdk.predict(image, model)) <= most


def test_scores_of_file_and_detector_are_equal(exported):
    model, path = exported
    dataset = Shapes(4, size=(96, 96))
    ours, theirs = (sdk.evaluate(dataset, what, workers=0, batch_size=3) for what in (model, path))
    assert theirs["bbox/AP"] == pytest.approx(ours["bbox/AP"], abs=1e-4)


def test_preprocessing_outside(tmp_path):
    model = detector("retinanet_tiny_shapes")
    path = sdk.export(model, tmp_path / "model.pt2", preprocess="outside")
    images = [Shapes(8, size=size)[0].image for size in ((150, 200), (97, 133), (60, 60))]
    for expected, found in zip(sdk.predict(images, model, batch_size=3), sdk.predict(images, path, batch_size=3)):
        require_equal(found, expected)


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(size=(320, 192)),
        Preprocessing(size=(512, 300), keep_ratio=False, channels="bgr"),
        Preprocessing(size=None),
    ],
)
@pytest.mark.parametrize("size", [(333, 500), (97, 41), (384, 640), (200, 7)])
def test_resizing_is_that_of_opencv(preprocessing, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    small, scale = preprocessing.resize(image)
    pixels, valid, factors = ResizeAndNormalize(preprocessing)(torch.from_numpy(image).permute(2, 0, 1)[None])
    np.testing.assert_allclose(pixels[0].numpy(), preprocessing.pixels(small), rtol=0, atol=1e-6)
    assert tuple(valid.tolist()) == small.shape[:2]
    assert tuple(factors.tolist()) == pytest.approx(scale)


def test_what_cannot_be_exported_is_refused(tmp_path):
    model = detector("retinanet_tiny_shapes")
    with pytest.raises(SdkError, match=r"ends in \.onnx, \.pt2, \.xml"):
        sdk.export(model, tmp_path / "model.tflite")
    model.test.soft_nms = SoftNMS()
    with pytest.raises(SdkError, match="soft-NMS"):
        sdk.export(model, tmp_path / "model.pt2")
    model = detector("retinanet_tiny_shapes")
    # As a detector does whose post-processing goes through the images one by one.
    model.predict = lambda images: [None, None]
    with pytest.raises(SdkError, match="made for each image anew"):
        sdk.export(model, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_broken_and_foreign_files_are_named(tmp_path):
    (tmp_path / "broken.pt2").write_bytes(b"nothing")
    with pytest.raises(RunError, match=r"broken\.pt2: not a readable program"):
        sdk.predict(Shapes(1)[0].image, tmp_path / "broken.pt2")
    with pytest.raises(RunError, match="no such file"):
        sdk.predict(Shapes(1)[0].image, tmp_path / "absent.onnx")


def test_the_shell(tmp_path, capsys):
    path = tmp_path / "model.pt2"
    from sdk.results.weights import save_weights

    model = detector("retinanet_tiny_shapes")
    weights = tmp_path / "model.safetensors"
    save_weights(weights, model, recipe=model.recipe, classes=model.classes, category_ids=range(4))
    assert cli.main(["export", str(weights), str(path)]) == 0
    extra = {"sdk.json": ""}
    torch.export.load(path, extra_files=extra)
    assert json.loads(extra["sdk.json"])["classes"] == list(model.classes)


@pytest.mark.long
def test_masks_and_two_stages(tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model = detector("mask_rcnn_tiny_shapes")
    model.rpn_head.rpn_cls.weight.data *= 5
    model.roi_head.bbox_head.fc_cls.weight.data *= 3
    path = sdk.export(model, tmp_path / "model.onnx")
    for size in ((96, 128), (150, 90)):
        image = Shapes(4, size=size)[1].image
        expected, found = sdk.predict(image, model), sdk.predict(image, path)
        require_equal(found, expected)
        assert found.masks.shape == (len(expected), *size)
        assert (found.masks != expected.masks).float().mean() < 1e-3
        small = sdk.runtime.load(path)(image)
        assert (small.masks() != found.masks.numpy()).mean() < 1e-3
