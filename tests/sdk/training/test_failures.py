"""Steps that go wrong: too little memory, and values that are not finite."""

from __future__ import annotations

import copy

import pytest
import torch

import sdk
from sdk import cli
from sdk.errors import NonFiniteLoss, RunError
from sdk.inference.batching import Batch
from sdk.models.recipe import Optimizer
from sdk.models.structures import ImageBatch, Targets
from sdk.results.manifest import read_metrics
from sdk.training.failures import replay


def test_a_batch_in_parts_is_the_same_images():
    pixels = torch.randn(5, 3, 4, 6)
    targets = [Targets(torch.rand(i, 4), torch.arange(i)) for i in range(5)]
    batch = Batch(ImageBatch(pixels, [(4, 6 - i) for i in range(5)]), targets, tuple("abcde"), (None,) * 5)
    for parts, sizes in ((1, [5]), (2, [2, 3]), (4, [1, 1, 2, 1]), (8, [1] * 5)):
        made = batch.split(parts)
        assert sorted(map(len, made)) == sorted(sizes)
        assert torch.equal(torch.cat([part.images.pixels for part in made]), pixels)
        assert [size for part in made for size in part.images.sizes] == batch.images.sizes
        assert [target for part in made for target in part.targets] == targets
        assert "".join(image_id for part in made for image_id in part.image_ids) == "abcde"


def without_memory(model, most: int, told: list[int]):
    """The model on a device that holds ``most`` images."""
    whole = model.forward

    def forward(images, targets):
        told.append(len(images))
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(images, targets)

    model.forward = forward
    return model


def frozen_statistics(model):
    """Without statistics over a batch, parts give the same as the whole."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train = lambda mode=True, module=module: module
            module.training = False
    model.bbox_head.loss = lambda outputs, images, targets: {
        "loss": sum(level.square().mean(dim=(1, 2, 3)).sum() for level in outputs[0]) / len(images)
    }
    return model


def test_too_little_memory_gives_the_same_steps_in_parts(tmp_path, shapes, tiny, capsys):
    plain = {"workers": 0, "epochs": 1, "lr": 0.01}
    optimizer = Optimizer(lr=0.01, momentum=0.0, weight_decay=0.0)
    whole, parted = (frozen_statistics(tiny(optimizer=optimizer)) for _ in range(2))
    sdk.fit(shapes, whole, out=tmp_path / "whole", **plain)
    told: list[int] = []
    sdk.fit(shapes, without_memory(parted, 1, told), out=tmp_path / "parted", **plain)
    assert told[:3] == [4, 2, 1]
    assert set(told[3:]) == {1}, "later steps begin with what fitted"
    said = capsys.readouterr().err
    assert "step 0: too little memory for 4 images at once; from here on in 2 parts" in said
    assert "in 4 parts, which are one step of the same 4 images" in said
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(value, parted.state_dict()[name], rtol=1e-4, atol=1e-6, msg=name)
    first, second = (
        [line["loss"] for line in read_metrics(tmp_path / name / "metrics.jsonl") if "loss" in line]
        for name in ("whole", "parted")
    )
    assert first == pytest.approx(second, rel=1e-4)


def test_too_little_memory_for_one_image_is_raised(tmp_path, shapes, tiny):
    told: list[int] = []
    with pytest.raises(torch.OutOfMemoryError):
        sdk.fit(shapes, without_memory(tiny(), 0, told), out=tmp_path / "run", workers=0)
    assert told == [4, 2, 1]


class Wrong(torch.autograd.Function):
    """Nothing on the way forward, NaN on the way back."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


def test_a_gradient_that_is_not_finite_changes_no_weight(tmp_path, shapes, tiny):
    model = tiny(optimizer=Optimizer(lr=0.02))
    model.neck.register_forward_hook(lambda _, __, out: tuple(Wrong.apply(level) for level in out))
    before = {name: value.clone() for name, value in model.named_parameters()}
    with pytest.raises(NonFiniteLoss, match=r"step 0 .*gradient of backbone\.conv1\.weight = nan, .*images"):
        sdk.fit(shapes, model, out=tmp_path / "run", workers=0)
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]), name
    found = replay(tmp_path / "run", model=copy.deepcopy(model))
    assert found.module is None
    assert "backbone.conv1.weight" in found.gradients
    assert "bbox_head.retina_cls.weight" not in found.gradients
    assert "WrongBackward" in str(found)


def test_replay_names_the_first_module_that_is_not_finite(tmp_path, shapes, tiny):
    model = tiny()
    calls = []

    def break_down(_, __, out):
        calls.append(1)
        return out / 0 if len(calls) == 3 else out

    hook = model.backbone.layer2.register_forward_hook(break_down)
    with pytest.raises(NonFiniteLoss, match=r"step 2 .*failed\.pt.*--replay"):
        sdk.fit(shapes, model, out=tmp_path / "run", workers=0)
    hook.remove()
    with torch.no_grad():
        fresh = tiny(seed=5)
    # Nothing breaks down without the hook: the weights and the images that were kept are finite.
    assert "everything is finite here" in str(replay(tmp_path / "run", model=fresh))
    fresh.backbone.layer2[0].conv2.register_forward_hook(lambda _, __, out: out * float("inf"))
    found = replay(tmp_path / "run", model=fresh)
    assert found.module == "backbone.layer2.0.conv2"
    assert found.step == 2
    assert len(found.image_ids) == 4
    assert not torch.isfinite(torch.tensor(list(found.losses.values()))).all()


def test_replay_of_a_run_without_a_failed_step(tmp_path, shapes, tiny, capsys):
    sdk.fit(shapes, tiny(), out=tmp_path / "run", workers=0, epochs=1)
    with pytest.raises(RunError, match="no step of this run was stopped"):
        replay(tmp_path / "run")
    assert cli.main(["fit", "--replay", str(tmp_path / "run")]) == 1
    assert "no step of this run was stopped" in capsys.readouterr().err
