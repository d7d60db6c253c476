"""The convolutions of DetectoRS start as plain ones."""

from __future__ import annotations

import torch
from torch import nn

from sdk.models.layers.switchable_conv import AWSConv2d, SwitchableConv2d


def test_plain_weights_compute_what_they_did_before() -> None:
    plain = nn.Conv2d(6, 8, 3, padding=1, bias=False)
    standardized = AWSConv2d(6, 8, 3, padding=1, bias=False)
    standardized.load_state_dict(plain.state_dict(), strict=True)
    x = torch.randn(2, 6, 9, 7)
    torch.testing.assert_close(standardized(x), plain(x), rtol=1e-4, atol=1e-5)


def test_own_statistics_are_kept_when_loaded() -> None:
    source, copy = AWSConv2d(3, 4, 3), AWSConv2d(3, 4, 3)
    source.keep_weight()
    with torch.no_grad():
        source.weight.mul_(3)
    copy.load_state_dict(source.state_dict())
    torch.testing.assert_close(copy.weight_gamma, source.weight_gamma)
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(copy(x), source(x))


def test_switchable_starts_as_the_plain_convolution() -> None:
    plain = nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False)
    switchable = SwitchableConv2d(6, 8, 3, stride=2, padding=1)
    missing, unexpected = switchable.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert not any("gamma" in name or "beta" in name for name in missing)
    for size in ((9, 12), (2, 2)):
        x = torch.randn(2, 6, *size)
        torch.testing.assert_close(switchable(x), plain(x), rtol=1e-4, atol=1e-5)
