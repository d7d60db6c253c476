"""Two hundred steps on drawn shapes: the loss falls, and more is found than by an untrained detector."""

import numpy as np
import pytest
import torch
from sdk.datasets import Shapes
from sdk.evaluators.coco import CocoEvaluator
from small_detectors import on_small_resnet, representatives, small_detector

from sdk.batching import Collate

STEPS, BATCH = 200, 4
REPRESENTATIVES = {
    name: recipe
    for name, recipe in representatives().items()
    if on_small_resnet(recipe) and not recipe.needs_proposals and not name.endswith("_shapes")
}


def average_precision(model, dataset, collate):
    """COCO AP of boxes, of proposals' best class-agnostic score where the detector has no classes."""
    evaluator = CocoEvaluator(dataset, kinds=("bbox",))
    model.eval()
    with torch.no_grad():
        for index in range(len(dataset)):
            batch = collate([dataset[index]])
            evaluator.update(batch.image_ids, model.predict(batch.images))
    return evaluator.compute()["bbox/AP50"] or 0.0


@pytest.mark.long
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_it_learns(name):
    recipe = REPRESENTATIVES[name]
    dataset = Shapes(200, size=(128, 128))
    model = small_detector(recipe, len(dataset.classes))
    collate = Collate.of(recipe)
    if recipe.needs_semantic:
        pytest.skip("drawn shapes have no class maps beside their masks")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-4)
    before = average_precision(model, dataset.splits["val"], collate)
    rng = np.random.default_rng(0)
    history = []
    model.train()
    for step in range(STEPS):
        torch.manual_seed(step)
        batch = collate([dataset[int(i)] for i in rng.integers(0, len(dataset), BATCH)])
        loss = sum(model(batch.images, batch.targets).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        history.append(float(loss.detach()))
    after = average_precision(model, dataset.splits["val"], collate)
    print(f"{name}: loss {np.mean(history[:20]):.3f} -> {np.mean(history[-20:]):.3f}, AP50 {before:.4f} -> {after:.4f}")
    assert np.mean(history[-20:]) < np.mean(history[:20])
    assert after > before
