"""One step of training against torchvision's detectors of the same architecture.

``python -m benchmarks.training [--batch-size N]``
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from sdk.inference.batching import Batch
from sdk.models.recipe import Schedule
from sdk.results.weights import recipe_of
from sdk.training.loop import Training
from sdk.training.plan import Plan

from .detectors import PAIRS, Pair, images, objects
from .measuring import Case, parser, run

SIZE, SMALL = (800, 1344), (96, 128)
LR = 1e-4
"""Small, so that random weights stay finite for as many turns as are wanted."""


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures, and returns the figures."""
    made = parser("training", __doc__ or "", turns=5)
    made.add_argument("--batch-size", type=int, default=2)
    options = made.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        return run("training", cases(options, Path(folder)), options, {})


def cases(options: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """A step of both architectures."""
    size = SMALL if options.quick else SIZE
    for pair in PAIRS[:1] if options.quick else PAIRS:
        yield step(pair, options.batch_size, size, folder)


def training_of(pair: Pair, folder: Path, count: int, precision: str = "32-true", device: str = "cpu") -> Training:
    """Our training of a detector, as ``sdk.fit`` makes it."""
    model = pair.ours()
    plan = Plan(
        schedule=Schedule(),
        batch_size=count,
        accumulate=1,
        world_size=1,
        lr=LR,
        warmup_steps=0,
        steps_per_epoch=1000,
        precision=precision,
        ema_decay=None,
        seed=0,
    )
    fabric = Fabric(accelerator=device, devices=1, precision=precision)  # type: ignore[arg-type]
    return Training(fabric, model, recipe_of(model), plan, folder)


def step(pair: Pair, count: int, size: tuple[int, int], folder: Path) -> Case:
    (batch, pictures), (targets, wanted) = images(count, size), objects(count, size)
    training = training_of(pair, folder, count)
    ready = Batch(batch, targets, tuple(range(count)), (None,) * count)

    def ours() -> None:
        training.train_step([ready])
        list(training.finished(wait=True))

    model = pair.torchvision(size).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=LR, momentum=0.9, weight_decay=1e-4)

    def torchvision() -> None:
        optimizer.zero_grad()
        total = sum(model(pictures, wanted).values())
        total.backward()  # type: ignore[union-attr]
        optimizer.step()
        float(total.detach())  # type: ignore[union-attr]

    name = f"{pair.title}, a step of {count} x {size[0]} x {size[1]}"
    return Case(name, ours, {"torchvision": torchvision}, target={"torchvision": 1.2}, per=count)


if __name__ == "__main__":
    main()
