"""Parameter groups, schedules and averaged weights against figures worked out by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from sdk.models.recipe import Optimizer, ParameterRule, Schedule
from sdk.training.optimization import AveragedWeights, lay_out_alike, lr_factor, make_optimizer, parameter_groups


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.frozen = nn.Conv2d(4, 4, 1).requires_grad_(False)
        self.conv_offset = nn.Conv2d(4, 2, 1)
        self.head = nn.Linear(4, 2)
        self.again = self.head


def settings_of(model: nn.Module, **settings) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in parameter_groups(model, Optimizer(lr=1.0, weight_decay=0.1, **settings), lr=1.0)
        for parameter in group["params"]
    }


def test_every_trained_parameter_once():
    groups = settings_of(Net())
    assert set(groups.values()) == {(1.0, 0.1)}
    assert sorted(groups) == sorted(name for name, p in Net().named_parameters() if p.requires_grad)


def test_norm_and_bias_factors():
    groups = settings_of(Net(), norm_decay_factor=0.0, bias_lr_factor=2.0, bias_decay_factor=0.5)
    assert groups["backbone.1.weight"] == groups["backbone.1.bias"] == (1.0, 0.0)
    assert groups["backbone.0.bias"] == groups["head.bias"] == (2.0, 0.05)
    assert groups["backbone.0.weight"] == (1.0, 0.1)
    assert groups["conv_offset.bias"] == (1.0, 0.1)


def test_longest_rule_wins_and_decides_alone():
    rules = (ParameterRule("backbone", lr_factor=0.1), ParameterRule("backbone.1", lr_factor=0.5, decay_factor=0.0))
    groups = settings_of(Net(), rules=rules, norm_decay_factor=0.3, bias_lr_factor=2.0)
    assert groups["backbone.0.bias"] == (0.1, 0.1)
    assert groups["backbone.1.weight"] == (0.5, 0.0)
    assert groups["head.bias"] == (2.0, 0.1)


def test_steps_and_linear_warmup():
    schedule = Schedule(epochs=3, drops=(1, 2), warmup_steps=4, warmup_factor=0.2)
    factors = [lr_factor(schedule, step, 6, step // 2, 4) for step in range(6)]
    drops = [1, 1, 0.1, 0.1, 0.01, 0.01]
    warmup = [0.2, 0.4, 0.6, 0.8, 1, 1]
    assert factors == pytest.approx([a * b for a, b in zip(drops, warmup)])


def test_constant_warmup_and_cosine():
    constant = Schedule(epochs=1, drops=(), warmup="constant", warmup_factor=1 / 3)
    assert [lr_factor(constant, step, 4, 0, 2) for step in range(3)] == pytest.approx([1 / 3, 1 / 3, 1])
    cosine = Schedule(epochs=1, decay="cosine", drops=())
    factors = [lr_factor(cosine, step, 4, 0, 0) for step in range(5)]
    assert factors == pytest.approx([1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0], abs=1e-12)


@pytest.mark.parametrize(("steps", "rising"), [(20, 5), (7, 5), (100, 29)])
def test_one_cycle_is_that_of_torch(steps, rising):
    optimizer = torch.optim.SGD(Net().parameters(), lr=1.0)
    # Torch's rising phase ends at the step before its share of all steps.
    share = {"pct_start": (rising + 1) / steps, "div_factor": 25, "final_div_factor": 1e4}
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, steps, cycle_momentum=False, **share)
    expected = []
    for _ in range(steps):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        if len(expected) < steps:
            theirs.step()
    ours = [lr_factor(Schedule(decay="one-cycle"), step, steps, 0, rising) for step in range(steps)]
    assert ours == pytest.approx(expected)


@pytest.mark.parametrize("changes", [{"decay": "poly"}, {"warmup": "exp"}])
def test_unknown_schedule(changes):
    with pytest.raises(ValueError, match="expected"):
        lr_factor(Schedule(**changes), 0, 10, 0, 5)


@pytest.mark.parametrize(("kind", "made"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam)])
def test_optimizer_kinds(kind, made):
    assert type(make_optimizer(Net(), Optimizer(kind=kind), 0.1)) is made
    with pytest.raises(ValueError, match="found 'lion'"):
        make_optimizer(Net(), Optimizer(kind="lion"), 0.1)


def test_averaged_weights():
    model = Net()
    averaged = AveragedWeights(model, decay=0.5)
    start = model.head.weight.detach().clone()
    with torch.no_grad():
        model.head.weight += 1
        model.backbone[1].num_batches_tracked += 7
    averaged.update(model, step=1000)
    torch.testing.assert_close(averaged.model.head.weight, start + 0.5)
    assert averaged.model.backbone[1].num_batches_tracked == 7
    averaged.update(model, step=0)  # the decay begins at 1/10
    torch.testing.assert_close(averaged.model.head.weight, start + 0.95)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_state_of_another_memory_layout_goes_on_the_same(kind):
    def trained(layouts):
        """Two steps, the second one after the state went through a file, with the weights in these layouts."""
        torch.manual_seed(0)
        model = nn.Conv2d(4, 6, 3)
        images = torch.randn(2, 4, 5, 5)
        state = None
        for layout in layouts:
            model.to(memory_format=layout)
            optimizer = make_optimizer(model, Optimizer(kind=kind), 0.1)
            if state is not None:
                optimizer.load_state_dict(state)
                lay_out_alike(optimizer)
            optimizer.zero_grad()
            model(images).square().mean().backward()
            optimizer.step()
            state = copy.deepcopy(optimizer.state_dict())
        return model.weight

    alike = trained([torch.contiguous_format] * 2)
    torch.testing.assert_close(trained([torch.contiguous_format, torch.channels_last]), alike)
