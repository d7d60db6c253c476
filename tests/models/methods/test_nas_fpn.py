"""The head whose levels share convolutions but not their normalization.

Shape letters: B images, A anchors of a location, K classes, H x W locations of a level.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sdk.models.methods.nas_fpn import RetinaSepBNHead

SIZES = [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]


def head_and_maps():
    torch.manual_seed(0)
    head = RetinaSepBNHead(num_classes=2, in_channels=8)
    return head, [torch.randn(2, 8, *size) for size in SIZES]


def test_levels_share_what_the_paper_shares():
    head, _ = head_and_maps()
    for towers in (head.cls_convs, head.reg_convs):
        for index in range(4):
            assert len({id(tower[index].conv.weight) for tower in towers}) == 1
            assert len({id(tower[index].bn.weight) for tower in towers}) == 5


def test_each_level_is_normalized_by_its_own_statistics():
    head, maps = head_and_maps()
    head.train()
    with torch.no_grad():
        logits, _ = head(maps)
        for level, x in enumerate(maps):
            for layer in head.cls_convs[0]:
                x = F.conv2d(x, layer.conv.weight, padding=1)
                centred = x - x.mean(dim=(0, 2, 3), keepdim=True)
                spread = (centred**2).mean(dim=(0, 2, 3), keepdim=True)
                x = (centred / (spread + 1e-5).sqrt()).clamp(min=0)
            wanted = F.conv2d(x, head.retina_cls.weight, head.retina_cls.bias, padding=1)
            torch.testing.assert_close(logits[level], wanted, rtol=1e-3, atol=1e-3)


def test_a_state_that_stores_shared_weights_once_loads():
    head, maps = head_and_maps()
    copy = RetinaSepBNHead(num_classes=2, in_channels=8)
    stored = {
        name: value
        for name, value in head.state_dict().items()
        if not (name.endswith("conv.weight") and name.split(".")[1] in "1234")
    }
    count = len(stored)
    copy.load_state_dict(stored, strict=True)
    assert len(stored) == count
    for mine, other in zip(head.eval()(maps), copy.eval()(maps), strict=True):
        for a, b in zip(mine, other, strict=True):
            assert torch.equal(a, b)


def test_shared_weights_learn_from_every_level():
    head, maps = head_and_maps()
    for level in range(5):
        head.zero_grad()
        logits, codes = head.eval()(maps)
        (logits[level].sum() + codes[level].sum()).backward()
        gradient = head.cls_convs[0][0].conv.weight.grad
        assert float(gradient.abs().sum()) > 0
        # Of the normalization only that of the level learns.
        learnt = [own for own, tower in enumerate(head.cls_convs) if tower[0].bn.weight.grad is not None]
        assert [own for own in learnt if float(head.cls_convs[own][0].bn.weight.grad.abs().sum()) > 0] == [level]
