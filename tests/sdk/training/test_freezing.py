"""Parts that are not trained stay as they are, bit for bit."""

from __future__ import annotations

import pytest
from torch import nn

import sdk
from sdk.errors import RunError
from sdk.models.backbones.resnet import ResNet
from sdk.training.freezing import Frozen


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet(18, frozen_stages=-1, norm_eval=False, base_channels=4)
        self.neck = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, affine=False))
        self.head = nn.Linear(4, 2)


def left(*patterns: str) -> set[str]:
    """Which parts of the second level are still trained, in whole or in part."""
    net = Net()
    Frozen(net, patterns)
    return {".".join(name.split(".")[:2]) for name, parameter in net.named_parameters() if parameter.requires_grad}


def test_names_stages_and_patterns():
    stages = {f"backbone.layer{i}" for i in range(1, 5)}
    stem, rest = {"backbone.conv1", "backbone.bn1"}, {"neck.0", "head.weight", "head.bias"}
    assert left() == stages | stem | rest
    assert left("backbone") == rest
    assert left("stage0") == stages | rest
    assert left("stage2") == left("2") == {"backbone.layer3", "backbone.layer4"} | rest
    assert left("backbone.layer[12]") == stages - {"backbone.layer1", "backbone.layer2"} | stem | rest
    assert left("layer1", "head.bias") == stages - {"backbone.layer1"} | stem | {"neck.0", "head.weight"}


def test_what_is_frozen_stays_in_evaluation():
    net = Net()
    frozen = Frozen(net, ["stage1", "neck"])
    net.train()
    frozen.keep_in_evaluation(net)
    modes = {name: module.training for name, module in net.named_modules() if name}
    assert not any(modes[name] for name in ("backbone.bn1", "backbone.layer1.0.bn1", "neck", "neck.1"))
    assert all(modes[name] for name in ("backbone", "backbone.layer2.0.bn1", "head"))


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        (
            "bakcbone",
            r"freeze: 'bakcbone' names no part of Net \(did you mean backbone\?\); it has backbone, neck, head",
        ),
        ("stage5", "freeze: stage5: the backbone has 4 stages"),
        ("*", r"freeze: \* leaves nothing to train"),
    ],
)
def test_what_names_nothing_or_all_is_said(pattern, told):
    with pytest.raises(ValueError, match=told):
        Frozen(Net(), [pattern])


def test_a_training_changes_the_rest_alone(tmp_path, shapes, tiny, capsys):
    model = tiny(ema_decay=0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = {"epochs": 1, "workers": 0, "out": tmp_path / "run"}
    run = sdk.fit(shapes, model, freeze=["backbone", "*.bias"], **options)
    after = run.model.state_dict()
    for name, value in before.items():
        same = bool((after[name] == value).all())
        assert same == (name.startswith("backbone") or name.endswith(".bias")), name
    assert "parameters are trained, the others frozen" in capsys.readouterr().err
    with pytest.raises(RunError, match=r"its given differs: freeze was \['backbone', '\*.bias'\], is \['backbone'\]"):
        sdk.fit(shapes, tiny(ema_decay=0.5), freeze="backbone", resume="auto", **options)
