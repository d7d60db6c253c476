"""Sparse R-CNN: its dynamic convolution by hand, its proposals and its losses."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from sdk.models.backbones.resnet import ResNet
from sdk.models.methods.sparse_rcnn import DynamicConv, EmbeddingProposals, SparseRCNN, sparse_rcnn
from sdk.models.structures import ImageBatch, Targets


@pytest.fixture(scope="module")
def model() -> SparseRCNN:
    torch.manual_seed(0)
    return sparse_rcnn(3, backbone=partial(ResNet, 18, base_channels=8), proposals=6)


def test_dynamic_convolution_multiplies_each_region_by_its_own_weights() -> None:
    torch.manual_seed(0)
    channels, hidden, size = 6, 4, 3
    module = DynamicConv(channels, hidden, size)
    queries, regions = torch.randn(2, channels), torch.randn(2, channels, size, size)
    got = module(queries, regions)
    for r in range(2):
        weights = module.dynamic_layer(queries[r])
        first, second = weights[: channels * hidden], weights[channels * hidden :]
        x = F.relu(module.norm_in(regions[r].flatten(1).T @ first.reshape(channels, hidden)))
        x = F.relu(module.norm_out(x @ second.reshape(hidden, channels)))
        want = F.relu(module.fc_norm(module.fc_layer(x.flatten())))
        torch.testing.assert_close(got[r], want, rtol=1e-4, atol=1e-5)


def test_first_boxes_are_whole_images() -> None:
    boxes, queries = EmbeddingProposals(4, 8)(torch.tensor([[50.0, 40, 50, 40], [30, 60, 30, 60]]))
    torch.testing.assert_close(boxes[0], torch.tensor([[0.0, 0, 50, 40]]).expand(4, 4))
    torch.testing.assert_close(boxes[1], torch.tensor([[0.0, 0, 30, 60]]).expand(4, 4))
    assert queries.shape == (2, 4, 8)


def test_every_stage_learns_with_and_without_objects(model: SparseRCNN) -> None:
    torch.manual_seed(1)
    images = ImageBatch(torch.randn(2, 3, 64, 64), [(64, 64), (48, 40)])
    some = Targets(torch.tensor([[5.0, 5, 40, 30]]), torch.tensor([2]))
    none = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    for targets in ([some, none], [none, none]):
        losses = model.train()(images, targets)
        assert len(losses) == 6 * 3
        assert all(bool(value.isfinite()) for value in losses.values())
        model.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_batch_equals_single_images(model: SparseRCNN) -> None:
    torch.manual_seed(2)
    images = ImageBatch(torch.randn(2, 3, 64, 64), [(64, 64), (48, 40)])
    with torch.no_grad():
        together = model.eval().predict(images)
        alone = [model.predict(ImageBatch(images.pixels[i : i + 1], images.sizes[i : i + 1]))[0] for i in range(2)]
    for batch, single in zip(together, alone):
        assert len(batch) == 6
        # Six stages of random weights make rounding errors grow.
        torch.testing.assert_close(batch.boxes, single.boxes, rtol=1e-3, atol=0.02)
        torch.testing.assert_close(batch.scores, single.scores)
