"""A detector small enough to train in a test."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sdk.datasets import Shapes
from sdk.datasets.transforms import Flip, PhotometricDistortion, Preprocessing, ScaleJitter
from sdk.models.recipe import Optimizer
from sdk.models.zoo.tiny import RETINANET, tiny_retinanet


@pytest.fixture(scope="session")
def shapes() -> Shapes:
    return Shapes(16, size=(64, 64), max_objects=3)


@pytest.fixture
def tiny():
    """Makes a seeded detector, with every augmentation switched on."""

    def make(num_classes: int = 4, seed: int = 0, **changes):
        torch.manual_seed(seed)
        model = tiny_retinanet(num_classes, base_channels=4, channels=8, depth=1)
        model.recipe = replace(
            RETINANET,
            preprocessing=Preprocessing(size=(64, 64)),
            train_transforms=(ScaleJitter((64, 64), (0.8, 1.2)), Flip(), PhotometricDistortion()),
            images_per_device=4,
            schedule=replace(RETINANET.schedule, epochs=2),
            **{"optimizer": Optimizer(lr=0.02, clip_norm=10.0), "ema_decay": None, **changes},
        )
        return model

    return make


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
