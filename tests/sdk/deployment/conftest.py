"""One exported file with its certificate, for all who look at it."""

from __future__ import annotations

import pytest
import torch

import sdk
from sdk.datasets import Shapes


@pytest.fixture(scope="session")
def data():
    return Shapes(20, size=(96, 128)).val


@pytest.fixture(scope="session")
def detector(data):
    torch.manual_seed(0)
    model = sdk.models.create("retinanet_tiny_shapes", num_classes=4, weights=None).eval()
    model.classes = data.classes
    model.test.score_threshold = 0.0
    # Fresh classifiers score everything alike, so that rounding would decide which box suppresses which.
    model.bbox_head.retina_cls.weight.data *= 30
    return model


@pytest.fixture(scope="session")
def certified(detector, data, tmp_path_factory):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    return sdk.export(detector, tmp_path_factory.mktemp("certified") / "model.onnx", dataset=data)
