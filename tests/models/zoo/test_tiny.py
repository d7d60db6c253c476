"""The small detectors take a step and predict; that they learn is shown by the quickstart."""

from __future__ import annotations

import pytest
import torch

from sdk import models
from sdk.models import ImageBatch, Targets
from sdk.models.zoo.tiny import RECIPES


@pytest.mark.parametrize("name", [recipe.name for recipe in RECIPES])
def test_one_step(name):
    torch.manual_seed(0)
    model = models.create(name, num_classes=2, weights=None)
    images = ImageBatch(torch.randn(2, 3, 128, 160), [(128, 160), (100, 120)])
    masks = torch.zeros(1, 128, 160, dtype=torch.uint8)
    masks[:, 20:60, 30:80] = 1
    targets = [
        Targets(torch.tensor([[30.0, 20.0, 80.0, 60.0]]), torch.tensor([1]), masks),
        Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), masks[:0]),
    ]
    losses = model.train()(images, targets)
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)
    unused = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused, "a parameter without gradient stops distributed training"
    with torch.no_grad():
        found = model.eval().predict(images)
    assert len(found) == 2
    assert (found[0].masks is not None) == ("mask" in name)
