"""The branches of TridentNet against plain convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sdk.models.backbones.trident_resnet import TridentConv2d, TridentResNet
from sdk.models.layers import FROZEN_BN


def test_branches_differ_in_their_dilation():
    torch.manual_seed(0)
    conv = TridentConv2d(2, 3, 3, padding=1, bias=False)
    x = torch.randn(6, 2, 9, 9)
    got = conv(x).chunk(3)
    for own, pixels, dilation in zip(got, x.chunk(3), (1, 2, 3), strict=True):
        torch.testing.assert_close(own, F.conv2d(pixels, conv.weight, padding=dilation, dilation=dilation))
    torch.testing.assert_close(conv.eval()(x), F.conv2d(x, conv.weight, padding=2, dilation=2))


def test_the_middle_branch_stands_for_all():
    torch.manual_seed(0)
    body = TridentResNet(50, style="caffe", norm=FROZEN_BN)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        (branches,) = body.train()(x)
        (middle,) = body.eval()(x)
    assert branches.shape == (3, 1024, 4, 4)
    torch.testing.assert_close(branches[1:2], middle, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(branches[:1], middle, rtol=1e-2)
