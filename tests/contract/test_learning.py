"""Two hundred steps on drawn shapes: the loss falls, and more is found than by an untrained detector."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_detectors import OWN_BACKBONE, backbone_of, image_size, representatives, small_detector

from sdk.datasets import Shapes
from sdk.evaluators.coco import CocoEvaluator
from sdk.inference.batching import Collate

STEPS, BATCH = 200, 2
REPRESENTATIVES = representatives()
# First stages find objects of any class.
CLASS_AGNOSTIC = ("rpn_", "ga_rpn_", "crpn_r50")
# All of its proposals begin as the whole image, and leave it later than here; that it finds objects then is shown in
# test_set_overfitting.
LOSS_ONLY = ("sparse_rcnn_",)


class ShapesForAll:
    """Drawn shapes with all that a detector may read: a class map drawn from the masks, and rough proposals."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes, self.classes, self.category_ids = shapes, shapes.classes, shapes.category_ids

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int):
        sample = self.shapes[index]
        rng = np.random.default_rng(index)
        semantic = np.zeros(sample.size, np.uint8)
        for mask, label in zip(sample.masks.decode(), sample.labels, strict=True):
            semantic[mask > 0] = label + 1
        near = np.repeat(sample.boxes, 8, axis=0)
        near = near + rng.normal(0, 4, near.shape)
        corners = np.sort(rng.uniform(0, sample.size[0], (32, 2, 2)), axis=1).reshape(-1, 4)
        proposals = np.concatenate((near, corners)).clip(0, sample.size[0]).astype(np.float32)
        return replace(sample, semantic=semantic, proposals=proposals)


def average_precision(model, dataset, collate, kind):
    """AP at an IoU of one half."""
    evaluator = CocoEvaluator(dataset.shapes, kinds=(kind,))
    model.eval()
    with torch.no_grad():
        for index in range(len(dataset)):
            batch = collate([dataset[index]])
            given = {"proposals": [t.proposals for t in batch.targets]} if collate.proposals else {}
            evaluator.update(batch.image_ids, model.predict(batch.images, **given))
    return evaluator.compute()[f"{kind}/AP50"] or 0.0


@pytest.mark.long
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_it_learns(name):
    began = time.process_time()
    recipe = REPRESENTATIVES[name]
    shapes = {"classes": ("square",)} if name.startswith(CLASS_AGNOSTIC) else {}
    size = image_size(recipe, least=64)
    drawn = Shapes(64, size=(size, size), **shapes)
    dataset, held_out = ShapesForAll(drawn), ShapesForAll(drawn.val)
    model = small_detector(recipe, len(drawn.classes))
    collate = Collate.of(replace(recipe, preprocessing=replace(recipe.preprocessing, size=(size, size))))
    kinds = ("bbox", "segm") if recipe.needs_masks else ("bbox",)
    # A whole ResNet-50 from random weights learns so fast that its running statistics lag behind.
    lr = 1e-4 if backbone_of(recipe) in OWN_BACKBONE else 5e-4
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, fused=True)
    before = {kind: average_precision(model, held_out, collate, kind) for kind in kinds}
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
    after = {kind: average_precision(model, held_out, collate, kind) for kind in kinds}
    took = time.process_time() - began
    # From the very start: a second stage first learns that all is background, and pays again once it finds objects.
    first, last = np.mean(history[:5]), np.mean(history[-20:])
    print(f"{name}: {took:.0f} s, loss {first:.3f} -> {last:.3f}, AP50 {before} -> {after}")
    assert last < first
    for kind in () if name.startswith(LOSS_ONLY) else kinds:
        assert after[kind] > before[kind], kind
