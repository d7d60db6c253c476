"""Batches of a dataset: workers, order, sharding, resuming.

Shape letters: E places in an epoch's order, T images of one step on all devices and in all
passes together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .base import DetectionDataset
from .errors import DatasetError
from .sample import Sample
from .sampling import (
    Product,
    Sampler,
    augmentation_rng,
    epoch_order,
    group_by_aspect_ratio,
    is_portrait,
    occurrences,
)
from .transforms.base import Transform


class Loader:
    """Iterates over the batches of one epoch for one rank.

    The order of an epoch is a function of (seed, epoch), an augmentation of (seed, epoch, index, how often the image
    came before). A step takes T = batch_size * world_size * passes consecutive places of the order, and in each pass
    rank r the r-th ``batch_size`` of batch_size * world_size: two ranks of 4, or one rank of 4 in two passes, see in
    each step what one rank of 8 sees.

    batch_size: images a batch of this rank. transforms: applied to each sample in turn. collate: makes a batch of a
    list of samples; without it, the list is the batch. shuffle: new order each epoch. sampler: how often each image
    is seen, or several that hold together. group_by_aspect_ratio: a step is all landscape or all portrait.
    drop_last: leave out the last incomplete step, so that all ranks have the same number of full batches; by default
    where the data is shuffled or sampled, for training. Without it every image comes once, and the ranks' counts
    may differ by a batch. An epoch shorter than one step is then filled by going through it again.
    passes: batches of a rank that make one step. workers: processes that read; 0 reads in this one. pin_memory: for
    faster copies to a GPU.

    A DatasetError met in a worker is raised here as it was.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        *,
        batch_size: int,
        transforms: Sequence[Transform] = (),
        collate: Callable[[list[Sample]], Any] | None = None,
        seed: int = 0,
        shuffle: bool = False,
        sampler: Sampler | Sequence[Sampler] | None = None,
        group_by_aspect_ratio: bool = False,
        drop_last: bool | None = None,
        rank: int = 0,
        world_size: int = 1,
        passes: int = 1,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        if batch_size < 1 or passes < 1 or workers < 0 or not 0 <= rank < world_size:
            found = f"batch_size {batch_size}, passes {passes}, workers {workers}, rank {rank} of {world_size}"
            raise ValueError(
                f"Loader: expected batch_size and passes >= 1, workers >= 0, 0 <= rank < world_size; found {found}"
            )
        if len(dataset) == 0:
            raise DatasetError("the dataset has no images", file=getattr(dataset, "image_root", None))
        self.dataset, self.batch_size, self.seed, self.shuffle = dataset, batch_size, seed, shuffle
        self.rank, self.world_size, self.passes = rank, world_size, passes
        self.drop_last = (shuffle or sampler is not None) if drop_last is None else drop_last
        self._repeats = np.ones(len(dataset))
        if sampler is not None:
            whole = Product(tuple(sampler)) if isinstance(sampler, Sequence) else sampler
            self._repeats = whole.repeats(dataset)
        self._portrait = is_portrait(dataset) if group_by_aspect_ratio else None
        self._steps = _Steps()
        self._batches = DataLoader(
            _Reader(dataset, tuple(transforms), seed),
            batch_sampler=self._steps,
            num_workers=workers,
            collate_fn=_Collate(collate),
            worker_init_fn=_start_worker,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            # Its own generator, so that iterating does not advance the global one, on which a model may depend.
            generator=torch.Generator(),
        )
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch that the next iteration gives, from its batch ``start_batch`` on."""
        steps = self.steps(epoch)
        if not 0 <= start_batch <= len(steps):
            raise ValueError(f"start_batch: expected 0..{len(steps)}, found {start_batch}")
        self._steps.keys = [[(epoch, index, nth) for index, nth in step] for step in steps[start_batch:]]

    def order(self, epoch: int) -> np.ndarray:
        """(E,) image indices of an epoch over all ranks; step s takes places s * T to (s + 1) * T."""
        step = self.batch_size * self.world_size * self.passes
        order = epoch_order(self._repeats, seed=self.seed, epoch=epoch, shuffle=self.shuffle)
        if self._portrait is not None:
            order = group_by_aspect_ratio(order, self._portrait, step)
        if not len(order):
            raise DatasetError("the sampler leaves no image", field="sampler")
        if self.drop_last:
            order = np.resize(order, step) if len(order) < step else order[: len(order) // step * step]
        return order

    def steps(self, epoch: int) -> list[list[tuple[int, int]]]:
        """This rank's batches of an epoch, as (image index, how often it came before)."""
        order = self.order(epoch)
        keys = np.stack([order, occurrences(order)], 1)
        step = self.batch_size * self.world_size
        first = self.rank * self.batch_size
        parts = [keys[s + first : min(s + first + self.batch_size, s + step)] for s in range(0, len(keys), step)]
        return [[(int(index), int(nth)) for index, nth in part] for part in parts if len(part)]

    def __len__(self) -> int:
        """Batches that the next iteration gives."""
        return len(self._steps.keys)

    def __iter__(self) -> Iterator[Any]:
        for batch in self._batches:
            if isinstance(batch, DatasetError):
                raise batch
            yield batch


class _Steps:
    """The batch sampler of an epoch: lists of (epoch, index, occurrence)."""

    def __init__(self) -> None:
        self.keys: list[list[tuple[int, int, int]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class _Reader(Dataset):
    """Reads and transforms one sample. An error is handed on as a value: raised in a worker it would come back as
    text inside another error."""

    def __init__(self, dataset: DetectionDataset, transforms: tuple[Transform, ...], seed: int) -> None:
        self.dataset, self.transforms, self.seed = dataset, transforms, seed

    def __getitem__(self, key: tuple[int, int, int]) -> Sample | DatasetError:
        epoch, index, occurrence = key
        try:
            sample = self.dataset[index]
            rng = augmentation_rng(self.seed, epoch, index, occurrence)
            for transform in self.transforms:
                sample = transform(sample, rng)
        except DatasetError as error:
            return error
        return sample


class _Collate:
    def __init__(self, collate: Callable[[list[Sample]], Any] | None) -> None:
        self.collate = collate

    def __call__(self, samples: list[Sample | DatasetError]) -> Any:
        good = []
        for sample in samples:
            if isinstance(sample, DatasetError):
                return sample
            good.append(sample)
        try:
            return good if self.collate is None else self.collate(good)
        except DatasetError as error:
            return error


def _start_worker(worker: int) -> None:
    # The workers are the parallelism; threads inside them would only fight for the cores.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
