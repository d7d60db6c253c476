"""The native kernels against the reference versions, on the CPU and, where there is one, on a CUDA device."""

from __future__ import annotations

import random

import pytest
import torch
from op_cases import CASES, IDS, Case, broken, strided
from torch import Tensor

from sdk.ops import backend

pytestmark = pytest.mark.skipif(not backend.LOADED, reason=f"native ops: {backend.REASON}")
CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not (backend.CUDA and torch.cuda.is_available()), reason="no CUDA device or no CUDA build"),
    ],
)
DEVICES = ["cpu", CUDA]
every_case = pytest.mark.parametrize("case", CASES, ids=IDS)
# Both round once at the end: half precision differs by a unit in the last place, of the largest value for sums.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def moved(args: list, device: str) -> list:
    return [arg.to(device) if isinstance(arg, Tensor) else arg for arg in args]


def run(function, args: list, wanted: tuple[int, ...]) -> list[Tensor]:
    """Outputs of ``function``, then the gradients of the ``wanted`` arguments."""
    args = list(args)
    for i in wanted:
        args[i] = args[i].detach().requires_grad_()
    outputs = function(*args)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    if not wanted:
        return outputs
    upstream = torch.linspace(0.5, 1.5, outputs[0].numel(), dtype=torch.float64).view(outputs[0].shape)
    upstream = upstream.to(outputs[0])
    grads = torch.autograd.grad(outputs[0], [args[i] for i in wanted], upstream)
    return [*(output.detach() for output in outputs), *grads]


def assert_same(found: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        other = other.to(one.device)
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        if one.dtype.is_floating_point:
            scale = other.abs().max().item() if other.numel() else 0.0
            tolerance = TOLERANCES[dtype]
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * max(scale, 1e-3))
        else:
            assert one.equal(other)


@every_case
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("contiguous", [True, False], ids=["contiguous", "strided"])
def test_equals_reference(case: Case, device: str, dtype: torch.dtype, contiguous: bool) -> None:
    for seed in range(10):
        torch.manual_seed(seed)
        args = case.make(23, dtype)
        expected = run(case.expected, args, case.wanted)
        args = moved(args, device)
        found = run(case.op, args if contiguous else strided(args), case.wanted)
        assert_same(found, expected, dtype)


@every_case
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [0, 1, 33])
def test_sizes(case: Case, device: str, size: int) -> None:
    torch.manual_seed(size)
    args = case.make(size, torch.float32)
    expected = run(case.expected, args, case.wanted if size else ())
    assert_same(run(case.op, moved(args, device), case.wanted if size else ()), expected, torch.float32)


@pytest.mark.parametrize("case", [c for c in CASES if c.wanted], ids=[i for i, c in zip(IDS, CASES) if c.wanted])
@pytest.mark.parametrize("device", DEVICES)
def test_empty_gradients(case: Case, device: str) -> None:
    args = moved(case.make(0, torch.float32), device)
    for i in case.wanted:
        args[i].requires_grad_()
    case.op(*args).sum().backward()
    for i in case.wanted:
        assert not args[i].grad.any()


@pytest.mark.parametrize("case", [c for c in CASES if c.wanted], ids=[i for i, c in zip(IDS, CASES) if c.wanted])
@pytest.mark.parametrize("device", DEVICES)
def test_gradcheck(case: Case, device: str) -> None:
    torch.manual_seed(1)
    args = moved(case.make(4, torch.float64), device)
    for i in case.wanted:
        args[i].requires_grad_()
    # Sums on CUDA are added in any order.
    assert torch.autograd.gradcheck(case.op, args, nondet_tol=1e-10 if device == "cuda" else 0.0)


@every_case
@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(case: Case, device: str) -> None:
    torch.manual_seed(2)
    args = moved(case.make(5, torch.float32), device)
    for i in case.wanted:
        args[i].requires_grad_()
    torch.library.opcheck(case.op, tuple(args))


@every_case
def test_invalid_calls_raise(case: Case) -> None:
    rng = random.Random(3)
    for _ in range(1000):
        args = broken(case, rng)
        with pytest.raises((ValueError, RuntimeError)):
            case.op(*args)


@pytest.mark.parametrize("case", [c for c in CASES if c.wanted], ids=[i for i, c in zip(IDS, CASES) if c.wanted])
def test_cpu_results_do_not_depend_on_threads(case: Case) -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(4)
    args = case.make(200, torch.float32)
    results = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(run(case.op, args, case.wanted))
    finally:
        torch.set_num_threads(threads)
    # The dense convolution behind the gradients of the masked one is PyTorch's.
    compared = 1 if case.name == "masked_conv2d" else len(results[0])
    for result in results[1:]:
        assert all(one.equal(other) for one, other in zip(result[:compared], results[0]))


@pytest.mark.gpu
@pytest.mark.skipif(not (backend.CUDA and torch.cuda.is_available()), reason="no CUDA device or no CUDA build")
@pytest.mark.parametrize("name", ["deform_roi_pool", "ms_deform_attn"])
def test_refuses_unordered_sums(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    args = moved(case.make(4, torch.float32), "cuda")
    args[0].requires_grad_()
    output = case.op(*args)
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="not deterministic"):
            output.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.long
@pytest.mark.parametrize("device", DEVICES)
def test_more_elements_than_32_bits_count(device: str) -> None:
    """Outputs of 4.4 GB and 2.2 GB; what lies at their ends must be as in a small one."""
    torch.manual_seed(5)
    corners = torch.rand(46_400, 2, device=device) * 100
    boxes = torch.cat([corners, corners + 1 + torch.rand_like(corners) * 50], 1).half()
    overlaps = torch.ops.sdk.pairwise_iou(boxes, boxes, 0, 1e-6)
    assert overlaps.numel() > 2**31
    assert overlaps[-9:].equal(torch.ops.sdk.pairwise_iou(boxes[-9:], boxes, 0, 1e-6))
    del overlaps
    masks = torch.rand(2100, 7, 7, device=device)
    pasted = torch.ops.sdk.paste_masks(masks, boxes[:2100].float(), 1024, 1024, 0.5)
    assert pasted.numel() > 2**31
    assert pasted[-9:].equal(torch.ops.sdk.paste_masks(masks[-9:], boxes[2091:2100].float(), 1024, 1024, 0.5))
