"""Deterministic training: the same bits, an error that names what cannot, and nothing left switched on."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

import sdk
from sdk.training.determinism import deterministic_algorithms


def test_equal_weights_twice(tmp_path, shapes, tiny):
    one, two = (
        load_file(sdk.fit(shapes, tiny(), out=tmp_path / n, workers=0, epochs=1, deterministic=True).weights_file)
        for n in "ab"
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_a_deterministic_way_is_named(tmp_path, shapes, tiny):
    model = tiny()
    whole = model.forward

    def put(images, targets):
        values = torch.zeros(4)
        values.put_(torch.tensor([0, 0]), torch.ones(2))  # in any order: which one stays is not determined
        return whole(images, targets)

    model.forward = put
    with pytest.raises(RuntimeError, match="put_ does not have a deterministic implementation"):
        sdk.fit(shapes, model, out=tmp_path / "run", workers=0, deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()


def test_what_was_switched_on_stays():
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with deterministic_algorithms(True):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
