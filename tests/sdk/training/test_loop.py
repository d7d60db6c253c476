"""What a step asks of the device, and what becomes of the weights when something is not finite."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sdk.errors import NonFiniteLoss
from sdk.inference.batching import Batch
from sdk.models.recipe import Optimizer, Recipe, Schedule
from sdk.models.structures import ImageBatch, Targets
from sdk.training.loop import Training
from sdk.training.plan import Plan
from sdk.training.readout import MOST_UNREAD

CUDA = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
)


class Brightness(nn.Module):
    """A detector whose losses read nothing back from the device."""

    num_classes = 1

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: ImageBatch, targets: list[Targets]) -> dict[str, Tensor]:
        maps = self.norm(self.conv(images.pixels))
        return {"loss_a": maps.square().mean(), "loss_b": maps.abs().mean()}


def made(folder, device: str = "cpu", **settings) -> Training:
    torch.manual_seed(0)
    optimizer = Optimizer(lr=0.1, clip_norm=1.0, **settings)
    recipe = Recipe(name="brightness", build=lambda _: Brightness(), optimizer=optimizer)
    plan = Plan(
        schedule=Schedule(epochs=1),
        batch_size=2,
        accumulate=1,
        world_size=1,
        lr=0.1,
        warmup_steps=0,
        steps_per_epoch=100,
        precision="32-true",
        ema_decay=0.9,
        seed=0,
    )
    return Training(Fabric(accelerator=device, devices=1), Brightness(), recipe, plan, folder)


def batch(number: int, value: float = 1.0, device: str = "cpu") -> Batch:
    pixels = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(number)) * value
    targets = [Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)) for _ in range(2)]
    return Batch(ImageBatch(pixels, [(6, 6)] * 2), targets, (f"{number}a", f"{number}b"), (None, None)).to(device)


class Reads(TorchDispatchMode):
    """Counts what makes the CPU wait for a GPU: values read, and sizes that depend on them."""

    WAITS = frozenset({"_local_scalar_dense", "nonzero", "masked_select", "equal"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in self.WAITS:
            self.found.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("settings", [{}, {"kind": "adamw"}, {"kind": "adam"}], ids=["sgd", "adamw", "adam"])
def test_a_step_reads_nothing_back(tmp_path, settings, monkeypatch):
    training = made(tmp_path, **settings)
    training.train_step([batch(0)])
    lists = []
    with Reads() as reads, monkeypatch.context() as patch:
        patch.setattr(Tensor, "tolist", lambda self: lists.append(self))
        for number in range(1, 4):
            training.train_step([batch(number), batch(number + 10)])
    assert reads.found == []
    assert lists == []
    # The counter does see a read.
    with Reads() as reads:
        float(training.intact)
    assert reads.found == ["_local_scalar_dense"]
    assert [done.step for done in training.finished()] == [1, 2, 3, 4]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_step_does_not_wait_for_the_gpu(tmp_path):
    training = made(tmp_path, "cuda")
    batches = [batch(number, device="cuda") for number in range(6)]
    training.train_step(batches[:1])
    list(training.finished(wait=True))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for one in batches[1:]:
            training.train_step([one])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [done.step for done in training.finished(wait=True)] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("settings", [{}, {"kind": "adamw"}], ids=["sgd", "adamw"])
@pytest.mark.parametrize("later", [0, 2])
def test_weights_stay_as_before_the_step_that_was_not_finite(tmp_path, settings, later, device):
    """``later``: steps that are taken before anybody reads the figures, as it happens on a GPU."""
    training = made(tmp_path, device, **settings)
    for number in range(3):
        training.train_step([batch(number, device=device)])
    assert [done.step for done in training.finished(wait=True)] == [1, 2, 3]
    before = {name: value.clone() for name, value in training.detector.named_parameters()}
    training.train_step([batch(3, float("inf"), device)])
    for number in range(later):
        training.train_step([batch(4 + number, device=device)])
    with pytest.raises(NonFiniteLoss, match=r"step 3 \(epoch 1\): loss_a = nan.*images 3a, 3b"):
        list(training.finished(wait=True))
    for name, value in training.detector.named_parameters():
        assert torch.equal(value, before[name]), name


def test_figures_wait_for_the_device_but_not_for_long(tmp_path, monkeypatch):
    training = made(tmp_path)
    monkeypatch.setattr("sdk.training.readout.Readout.ready", lambda self: False)
    told = []
    for number in range(MOST_UNREAD + 3):
        training.train_step([batch(number)])
        told += [done.step for done in training.finished()]
    assert told == [1, 2, 3]
    assert [done.step for done in training.finished(wait=True)] == [4, 5, 6, 7]


def test_a_parameter_whose_first_gradient_comes_late_is_trained(tmp_path):
    training = made(tmp_path)
    training.detector.norm.requires_grad_(False)
    training.train_step([batch(0)])
    training.detector.norm.requires_grad_(True)
    before = training.detector.norm.bias.detach().clone()
    training.train_step([batch(1)])
    assert all(torch.isfinite(value).all() for value in training.detector.parameters())
    assert not torch.equal(training.detector.norm.bias, before)
