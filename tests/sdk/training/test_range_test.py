"""A learning rate that is found lies where theory says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

import sdk
from sdk.errors import RunError
from sdk.inference.batching import Batch
from sdk.models.recipe import Optimizer, Recipe, Schedule
from sdk.models.structures import ImageBatch, Targets
from sdk.training.plan import Plan
from sdk.training.range_test import found_lr, steepest


class Bowl(nn.Module):
    """The square of one weight, with its curvature: descent with rate r multiplies the weight by 1 - r x curvature."""

    def __init__(self, curvature: float) -> None:
        super().__init__()
        self.weight, self.curvature = nn.Parameter(torch.ones(1)), curvature

    def forward(self, images, targets):
        return {"loss": self.weight.square().sum() * self.curvature / 2}


@pytest.mark.parametrize("curvature", [0.1, 1.0, 10.0])
def test_in_a_bowl_it_is_below_where_descent_overshoots(curvature):
    recipe = Recipe(name="bowl", build=lambda _: Bowl(1), optimizer=Optimizer(momentum=0.0, weight_decay=0.0))
    plan = Plan(Schedule(epochs=1), 1, 1, 1, 0.1, 0, 10, "32-true", None, 0)
    batch = Batch(
        ImageBatch(torch.zeros(1, 3, 4, 4), [(4, 4)]), [Targets(torch.zeros(0, 4), torch.zeros(0))], (0,), (None,)
    )
    model = Bowl(curvature)
    lr = found_lr(Fabric(accelerator="cpu", devices=1), model, [batch], recipe, plan)
    assert 0.01 / curvature < lr < 2 / curvature  # at 2 / curvature it diverges
    assert model.weight.item() == 1.0


def test_a_loss_that_never_falls_is_said():
    with pytest.raises(RunError, match="find_lr: the loss falls at no learning rate"):
        steepest(list(np.geomspace(1e-3, 1, 20)), list(np.linspace(1, 2, 20)))


def test_a_run_takes_what_is_found(tmp_path, shapes, tiny, capsys, monkeypatch):
    monkeypatch.setattr("sdk.training.range_test.STEPS", 12)
    run = sdk.fit(shapes, tiny(), find_lr=True, max_steps=1, workers=0, out=tmp_path / "run")
    lr = run.manifest["options"]["lr"]
    assert 0.02e-4 <= lr <= 2
    assert f"find_lr: {lr:.3g}, where the loss fell fastest between 2e-06 and" in capsys.readouterr().err
    with pytest.raises(ValueError, match="find_lr: lr is given too"):
        sdk.fit(shapes, tiny(), find_lr=True, lr=0.1)
