"""Inputs of every op, valid and invalid, for the tests of this folder."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdk.ops import reference
from sdk.ops.corner_pool import DIRECTIONS
from sdk.ops.overlaps import KINDS

Change = Callable[[list, random.Random], None]


@dataclass(frozen=True)
class Case:
    """One op with its arguments.

    name: of the op. make: valid arguments from (size, dtype). expected: the reference version.
    wanted: indices of the arguments that get gradients. free: of the tensors whose sizes stand alone.
    numbers: of the arguments that are no tensors, with values that are refused.
    values: changes of tensors that make them invalid.
    """

    name: str
    make: Callable[[int, torch.dtype], list]
    expected: Callable
    wanted: tuple[int, ...] = ()
    free: tuple[int, ...] = ()
    numbers: tuple[tuple[int, tuple], ...] = ()
    values: tuple[Change, ...] = ()

    @property
    def op(self):
        return getattr(torch.ops.sdk, self.name).default


def boxes(count: int, dtype: torch.dtype, largest: float = 40) -> Tensor:
    corners = torch.rand(count, 2, dtype=torch.float64) * 60
    return torch.cat([corners, corners + 1 + torch.rand(count, 2, dtype=torch.float64) * largest], 1).to(dtype)


def rand(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.rand(shape, dtype=torch.float64).to(dtype)


def put(index: int, value: float) -> Change:
    """Write ``value`` somewhere into argument ``index``."""

    def change(args: list, rng: random.Random) -> None:
        args[index] = args[index].clone()
        flat = args[index].view(-1)
        flat[rng.randrange(len(flat))] = value

    return change


def put_image(value: float) -> Change:
    def change(args: list, rng: random.Random) -> None:
        args[1] = args[1].clone()
        args[1][rng.randrange(len(args[1])), 0] = value

    return change


NAN, INFINITY = float("nan"), float("inf")
SUPPRESSION = (put(0, NAN), put(1, NAN))


def suppression(size: int, dtype: torch.dtype) -> list:
    return [boxes(size, dtype), rand(size, dtype=dtype), torch.randint(-3, 3, (size,))]


def attention(size: int, dtype: torch.dtype) -> list:
    shapes, starts = torch.tensor([[6, 7], [3, 2]]), torch.tensor([0, 42])
    locations = rand(2, size, 3, 2, 4, 2, dtype=dtype) * 1.4 - 0.2
    return [rand(2, 48, 3, 5, dtype=dtype), shapes, starts, locations, rand(2, size, 3, 2, 4, dtype=dtype)]


def pooling(offset: bool, ratio: int) -> Callable[[int, torch.dtype], list]:
    def make(size: int, dtype: torch.dtype) -> list:
        images = torch.randint(2, (size, 1)).to(dtype)
        shifts = (rand(size, 2, 2, 3, dtype=dtype) * 4 - 2) if offset else None
        rois = torch.cat([images, boxes(size, dtype)], 1)
        return [rand(2, 35, 11, 13, dtype=dtype), rois, shifts, 2, 3, 0.25, ratio, 0.1]

    return make


def pool_case(offset: bool, ratio: int) -> Case:
    return Case(
        "deform_roi_pool",
        pooling(offset, ratio),
        reference.deform_roi_pool,
        (0, 2) if offset else (0,),
        (0,) if offset else (0, 1),
        ((3, (0, -1)), (4, (0, -5)), (5, (0.0, -1.0, NAN)), (6, (1 << 40,))),
        (put(1, NAN), put(1, INFINITY), put_image(2), put_image(-1), put_image(1e30)),
    )


CASES = [
    Case(
        "batched_nms",
        lambda n, t: [*suppression(n, t), 0.5],
        reference.batched_nms,
        numbers=((3, (NAN,)),),
        values=SUPPRESSION,
    ),
    *(
        Case(
            "batched_soft_nms",
            lambda n, t, m=method: [*suppression(n, t), 0.3, 0.5, 0.05, m],
            reference.batched_soft_nms,
            numbers=((3, (NAN,)), (4, (0.0, -1.0, NAN)), (5, (NAN,)), (6, (3, -1))),
            values=SUPPRESSION,
        )
        for method in range(3)
    ),
    *(
        Case(
            "pairwise_iou",
            lambda n, t, k=kind: [boxes(n, t), boxes(17, t), k, 1e-6],
            lambda a, b, k, eps: reference.pairwise_iou(a, b, KINDS[k], eps),
            (0, 1),
            (),
            ((2, (3, -1)), (3, (0.0, -1.0, NAN))),
            (put(0, NAN), put(1, NAN)),
        )
        for kind in range(3)
    ),
    Case(
        "paste_masks",
        lambda n, t: [rand(n, 7, 5, dtype=t), boxes(n, t) - 5, 50, 60, 0.5],
        reference.paste_masks,
        numbers=((2, (-1, 1 << 40)), (3, (-7, 1 << 40)), (4, (0.0, -1.0, NAN))),
        values=(put(1, NAN), put(1, INFINITY)),
    ),
    pool_case(False, 0),
    pool_case(True, 0),
    pool_case(True, 2),
    Case(
        "ms_deform_attn",
        attention,
        reference.ms_deform_attn,
        (0, 3, 4),
        (),
        (),
        (put(1, 0), put(1, -4), put(1, 1 << 40), put(2, 48), put(2, -1), put(2, 1 << 60)),
    ),
    Case(
        "carafe",
        lambda n, t: [rand(2, 4, 6, n, dtype=t), rand(2, 18, 12, 2 * n, dtype=t), 3, 2, 2],
        reference.carafe,
        (0, 1),
        (),
        ((2, (0, -3, 2, 5, 1 << 40)), (3, (0, -1, 3, 1 << 40)), (4, (0, -2, 3, 1 << 40))),
    ),
    Case(
        "masked_conv2d",
        lambda n, t: [
            rand(n, 3, 9, 8, dtype=t),
            torch.rand(n, 5, 4) > 0.5,
            rand(4, 3, 3, 3, dtype=t) - 0.5,
            rand(4, dtype=t),
            [1, 1],
            [2, 2],
        ],
        reference.masked_conv2d,
        (0, 2, 3),
        (),
        ((4, ([-1, 1], [1], [5, 1], [1 << 40, 1])), (5, ([0, 1], [2], [-1, 2], [1 << 40, 1]))),
    ),
    *(
        Case(
            "corner_pool",
            lambda n, t, d=direction: [torch.randn(2, 3, n, n, dtype=torch.float64).to(t), d],
            lambda x, d: reference.corner_pool(x, DIRECTIONS[d]),
            (0,),
            (0,),
            ((1, (4, -1)),),
        )
        for direction in range(4)
    ),
    *(
        Case(
            "sigmoid_focal_loss",
            lambda n, t, g=gamma, w=weighted: [
                torch.randn(n, 7, dtype=torch.float64).to(t) * 4,
                torch.randint(8, (n,)),
                g,
                0.25,
                rand(n, dtype=t) if w else None,
            ],
            reference.sigmoid_focal_loss,
            (0, 4) if weighted else (0,),
            (),
            ((2, (-1.0, NAN)), (3, (NAN,))),
            (put(1, 8), put(1, -1), put(1, 1 << 60)),
        )
        for gamma, weighted in ((2.0, False), (1.5, True), (0.0, False))
    ),
]
IDS = [f"{i}-{case.name}" for i, case in enumerate(CASES)]


def strided(args: list) -> list:
    """The same values, every tensor with gaps in memory."""
    return [
        arg.repeat_interleave(2, dim=-1)[..., ::2] if isinstance(arg, Tensor) and arg.dim() > 0 else arg for arg in args
    ]


def break_tensor(args: list, free: tuple[int, ...], rng: random.Random) -> None:
    """Give one tensor another rank, size or dtype than the op takes."""
    index = rng.choice([i for i, arg in enumerate(args) if isinstance(arg, Tensor)])
    arg = args[index]
    kind = rng.randrange(3 if index in free else 4)
    if kind == 0:
        args[index] = arg.unsqueeze(rng.randrange(arg.dim() + 1))
    elif kind == 1:
        args[index] = arg.flatten() if arg.dim() > 1 else arg.sum()
    elif kind == 2:
        wrong = [torch.complex64, torch.int32, torch.uint8, torch.int8]
        args[index] = arg.to(rng.choice([*wrong, torch.int64] if arg.is_floating_point() else [*wrong, torch.float32]))
    else:
        args[index] = arg.new_zeros([size + rng.randrange(2, 5) for size in arg.shape])


def broken(case: Case, rng: random.Random) -> list:
    """Arguments of which one is invalid."""
    args = case.make(5, torch.float32)
    ways: list[Change] = [lambda args, rng: break_tensor(args, case.free, rng), *case.values]
    if case.numbers:

        def break_number(args: list, rng: random.Random) -> None:
            index, wrong = rng.choice(case.numbers)
            args[index] = rng.choice(wrong)

        ways.append(break_number)
    rng.choice(ways)(args, rng)
    return args
