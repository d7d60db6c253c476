"""Small set predictors learn a few drawn images by heart."""

from functools import partial

import pytest
import torch

from sdk.datasets import Shapes
from sdk.datasets.transforms import Preprocessing
from sdk.evaluators.coco import CocoEvaluator
from sdk.inference.batching import Collate
from sdk.models.backbones.resnet import ResNet
from sdk.models.detectors.base import Detector
from sdk.models.detectors.set_prediction import SetDetector
from sdk.models.layers import Norm
from sdk.models.methods.deformable_detr import deformable_detr
from sdk.models.methods.detr import detr
from sdk.models.methods.sparse_rcnn import EmbeddingProposals, SparseRCNN, SparseRoIHead
from sdk.models.necks.fpn import FPN
from sdk.models.settings import SetTest

LEARNING_RATE = 5e-4


def small(name: str) -> SetDetector:
    method, stages = {"detr": (detr, (2,)), "deformable_detr": (deformable_detr, (1, 2, 3))}[name]
    # Group normalization: sixteen images are too few for running statistics.
    backbone = partial(ResNet, 18, out_stages=stages, frozen_stages=-1, base_channels=16, norm=Norm("gn", groups=8))
    return method(4, backbone=backbone, queries=20, layers=2, dropout=0.0)


def small_sparse_rcnn() -> SparseRCNN:
    body = ResNet(18, frozen_stages=-1, base_channels=16, norm=Norm("gn", groups=8))
    return SparseRCNN(
        backbone=body,
        neck=FPN(body.out_channels, 64, num_outs=4),
        rpn_head=EmbeddingProposals(20, 64),
        roi_head=SparseRoIHead(num_classes=4, channels=64, stages=3),
        test=SetTest(max_per_image=20),
    )


def train(model: Detector, batch, steps: int) -> None:
    slow, fast = [], []
    for name, parameter in model.named_parameters():
        (slow if "sampling_offsets" in name or "reference_points" in name else fast).append(parameter)
    groups = [{"params": fast}] + ([{"params": slow, "lr": LEARNING_RATE / 10}] if slow else [])
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, int(steps * 0.8), 0.1)
    for _ in range(steps):
        loss = torch.stack(list(model(batch.images, batch.targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@pytest.mark.long
@pytest.mark.parametrize(("name", "steps"), [("detr", 300), ("deformable_detr", 150), ("sparse_rcnn", 150)])
def test_sixteen_drawn_images_are_learnt_by_heart(name: str, steps: int) -> None:
    torch.manual_seed(0)
    data = Shapes(16, size=(96, 96), max_objects=3)
    batch = Collate(Preprocessing(size=None))([data[index] for index in range(16)])
    model = small_sparse_rcnn() if name == "sparse_rcnn" else small(name)
    train(model, batch, steps)
    evaluator = CocoEvaluator(data, kinds=("bbox",))
    with torch.no_grad():
        evaluator.update(batch.image_ids, model.eval().predict(batch.images))
    report = evaluator.compute()
    assert report["bbox/AP50"] >= 0.9
