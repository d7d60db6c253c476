"""A detector made for inference finds the same as the detector itself."""

import pytest
import torch
from torch import nn

from sdk.models.backbones.hrnet import HRNet
from sdk.models.backbones.regnet import RegNet
from sdk.models.backbones.res2net import res2net
from sdk.models.backbones.resnest import resnest
from sdk.models.backbones.resnet import ResNet
from sdk.models.folding import foldable, for_inference
from sdk.models.layers.norm import BN, GN
from sdk.models.necks.dilated_encoder import DilatedEncoder
from sdk.models.necks.nas_fcos_fpn import OutConv


def with_statistics(module: nn.Module) -> nn.Module:
    """Batch normalization as after a training: nothing about it is the identity."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low in ((layer.weight, 0.5), (layer.bias, -0.5), (layer.running_mean, -0.5)):
                tensor.data.uniform_(low, 1.0, generator=generator)
            layer.running_var.uniform_(0.5, 2.0, generator=generator)
    return module.eval()


def norms(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


BUILT = {
    "resnet18": (lambda: ResNet(18, base_channels=16), 0),
    "resnet50": (lambda: ResNet(50, base_channels=16), 0),
    "resnet50 with GN": (lambda: ResNet(50, base_channels=32, norm=GN), 0),
    "deep stem, average shortcut": (lambda: ResNet(50, deep_stem_channels=16, average_shortcut=True), 0),
    "hrnet": (lambda: HRNet(18), 0),
    "regnet": (lambda: RegNet("regnetx_400mf"), 0),
    "res2net": (res2net, 0),
    # The normalizations inside a split-attention convolution stay.
    "resnest": (lambda: resnest(50), 32),
}


@pytest.mark.parametrize("name", BUILT)
def test_it_gives_the_same_maps(name):
    build, left = BUILT[name]
    torch.manual_seed(0)
    plain = with_statistics(build())
    x = torch.randn(2, 3, 64, 64)
    folded = for_inference(plain)
    assert norms(folded) == left
    with torch.no_grad():
        for found, expected in zip(folded(x), plain(x), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=5e-5 * float(expected.abs().max()))


def test_the_model_itself_stays_as_it_is():
    model = ResNet(18, base_channels=16).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for_inference(model)
    assert model.training
    assert model.state_dict().keys() == before.keys()
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert all(value.is_contiguous() for value in model.state_dict().values())


def test_a_normalization_before_its_convolution_stays():
    layer = with_statistics(OutConv(8))
    assert not list(foldable(layer))
    x = torch.randn(2, 16, 5, 5)
    torch.testing.assert_close(for_inference(layer)(x), layer(x))


def test_names_with_norm_are_paired():
    encoder = with_statistics(DilatedEncoder((32,), 16, middle=8))
    x = torch.randn(1, 32, 6, 6)
    folded = for_inference(encoder)
    assert norms(folded) == 0
    torch.testing.assert_close(folded([x])[0], encoder([x])[0], rtol=1e-4, atol=1e-4)


class NormFirst(nn.Module):
    """Somebody else's layer, which runs its parts in another order than it names them in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.conv1(self.bn1(x))


def test_the_layers_of_others_are_left_alone():
    layer = with_statistics(NormFirst())
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(for_inference(layer)(x), layer(x))


def test_one_convolution_before_two_normalizations():
    shared = nn.Conv2d(4, 4, 1, bias=False)
    model = with_statistics(nn.ModuleList([nn.Sequential(shared, BN(4)), nn.Sequential(shared, BN(4))]))
    x = torch.randn(2, 4, 3, 3)
    folded = for_inference(model)
    for own, plain in zip(folded, model, strict=True):
        torch.testing.assert_close(own(x), plain(x), rtol=1e-4, atol=1e-5)
