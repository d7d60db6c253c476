"""How often each image is seen in an epoch, and in which order.

Shape letters: I images, K classes, E places in an epoch's order, T images of one step on all devices together.

A sampler says how often an image should be seen, as a number that may be fractional. Every epoch the fractions are
resolved afresh. All draws are functions of (seed, epoch): a run that is resumed, or spread over another number of
devices, sees the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .base import DetectionDataset
from .errors import DatasetError
from .index import Annotations, Ragged

# Keeps the streams of an epoch's order and of its augmentations apart.
_ORDER, _AUGMENTATION = 0, 1


class Sampler(Protocol):
    """Says how often each image should be seen in an epoch."""

    def repeats(self, dataset: DetectionDataset) -> np.ndarray:
        """(I,) float64 >= 0, the expected number of times; 0 leaves the image out."""
        ...


@dataclass(frozen=True)
class RepeatFactor:
    """Repeat-factor sampling (Gupta et al., LVIS, section 4 and appendix): an image is seen
    ``max over its classes c of max(1, sqrt(threshold / f(c)))`` times, f(c) being the fraction of the images that
    show class c. Images without objects are seen once."""

    threshold: float = 0.001

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise DatasetError("not a fraction", field="threshold", found=self.threshold, expected="above 0, at most 1")

    def repeats(self, dataset: DetectionDataset) -> np.ndarray:
        shown = image_classes(dataset)
        frequency = np.bincount(shown.values, minlength=len(dataset.classes)) / max(len(dataset), 1)
        of_class = np.sqrt(self.threshold / np.maximum(frequency, 1e-300))
        repeats = np.ones(len(dataset))
        np.maximum.at(repeats, _rows(shown), of_class[shown.values])
        return repeats


@dataclass(frozen=True)
class ClassBalanced:
    """Every class is shown equally often: a class is drawn evenly, then one of its images evenly.

    In expectation an epoch has as many images as the dataset; images without objects are left out.
    """

    def repeats(self, dataset: DetectionDataset) -> np.ndarray:
        shown = image_classes(dataset)
        counts = np.bincount(shown.values, minlength=len(dataset.classes))
        present = max(int((counts > 0).sum()), 1)
        weights = len(dataset) / present / np.maximum(counts, 1)
        return np.bincount(_rows(shown), weights[shown.values], minlength=len(dataset)).astype(np.float64)


@dataclass(frozen=True)
class OnlyWithObjects:
    """Leaves out images without objects that count; their indices stay."""

    def repeats(self, dataset: DetectionDataset) -> np.ndarray:
        return (np.diff(image_classes(dataset).offsets) > 0).astype(np.float64)


@dataclass(frozen=True)
class Repeated:
    """Every image ``times`` times an epoch."""

    times: float

    def repeats(self, dataset: DetectionDataset) -> np.ndarray:
        return np.full(len(dataset), float(self.times))


@dataclass(frozen=True)
class Product:
    """Several samplers at once: an image is seen as often as the product of what they say."""

    samplers: tuple[Sampler, ...]

    def repeats(self, dataset: DetectionDataset) -> np.ndarray:
        return np.prod([sampler.repeats(dataset) for sampler in self.samplers], axis=0)


def image_classes(dataset: DetectionDataset) -> Ragged:
    """By image, the sorted labels of the objects that count (not ignored), each once. Decodes nothing."""
    columns = getattr(dataset, "annotations", None)
    if not isinstance(columns, Annotations):
        return Ragged.of(np.unique(dataset.info(i).labels) for i in range(len(dataset)))
    counted = columns.usable & ~columns.ignore
    classes = max(len(dataset.classes), 1)
    pairs = np.unique(columns.image_of()[counted] * classes + columns.labels[counted])
    lengths = np.bincount(pairs // classes, minlength=len(dataset))
    return Ragged(pairs % classes, np.concatenate([[0], np.cumsum(lengths)]))


def epoch_order(repeats: np.ndarray, *, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """(E,) image indices of one epoch: whole repeats always, the fraction as a coin that falls afresh each epoch."""
    if not np.isfinite(repeats).all() or (repeats < 0).any():
        raise DatasetError("repeats are not numbers >= 0", field="repeats", found=repeats[~(repeats >= 0)][:1])
    rng = counted_rng(seed, epoch, _ORDER)
    whole = np.floor(repeats)
    times = (whole + (rng.random(len(repeats)) < repeats - whole)).astype(np.int64)
    order = np.repeat(np.arange(len(repeats)), times)
    return rng.permutation(order) if shuffle else order


def group_by_aspect_ratio(order: np.ndarray, portrait: np.ndarray, step: int) -> np.ndarray:
    """The order rearranged so that every full step of T images is all landscape or all portrait.

    portrait: (I,) bool. A group fills in the given order; where both are left incomplete at the end, they share the
    last steps. Padding is then not spent on mixed shapes.
    """
    is_portrait = portrait[order]
    steps, left = [], []
    for flag in (False, True):
        places = np.flatnonzero(is_portrait == flag)
        full = len(places) // step * step
        steps += [(chunk[-1], chunk) for chunk in places[:full].reshape(-1, step)]
        left.append(places[full:])
    steps.sort(key=lambda entry: entry[0])
    arranged = np.concatenate([*(chunk for _, chunk in steps), np.sort(np.concatenate(left))])
    return order[arranged.astype(np.int64)]


def occurrences(order: np.ndarray) -> np.ndarray:
    """(E,) how many times the image at each place came before, so that its repeats are augmented differently."""
    by_image = np.argsort(order, kind="stable")
    ordered = order[by_image]
    first = np.concatenate([[0], np.flatnonzero(np.diff(ordered)) + 1]) if len(order) else np.zeros(0, np.int64)
    lengths = np.diff(np.append(first, len(order)))
    counts = np.empty(len(order), np.int64)
    counts[by_image] = np.arange(len(order)) - np.repeat(first, lengths)
    return counts


def counted_rng(*counters: int) -> np.random.Generator:
    """A generator that is a function of these numbers (each >= 0) alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(list(counters))))


def augmentation_rng(seed: int, epoch: int, index: int, occurrence: int) -> np.random.Generator:
    """The random numbers of one image in one epoch."""
    return counted_rng(seed, epoch, _AUGMENTATION, index, occurrence)


@dataclass(frozen=True)
class Exposure:
    """How often the images of each class are seen in an epoch: naturally, as the sampler wants, and as it happened.

    images: (K,) images that show the class. target: (K,) expected showings an epoch. realized: (K,) mean showings an
    epoch over ``epochs`` drawn ones. length: mean images an epoch.
    """

    classes: tuple[str, ...]
    images: np.ndarray
    target: np.ndarray
    realized: np.ndarray
    length: float
    epochs: int

    @property
    def largest_deviation(self) -> float:
        """Largest relative difference between realized and target over the classes that have a target."""
        wanted = self.target > 0
        return float(np.max(np.abs(self.realized[wanted] / self.target[wanted] - 1), initial=0.0))

    def __str__(self) -> str:
        width = max([len(name) for name in self.classes] + [5])
        lines = [f"{'class':<{width}} {'images':>9} {'target':>11} {'realized':>11}"]
        for row in np.argsort(self.images, kind="stable"):
            numbers = f"{self.images[row]:>9,} {self.target[row]:>11,.1f} {self.realized[row]:>11,.1f}"
            lines.append(f"{self.classes[row]:<{width}} {numbers}")
        lines.append(f"{self.length:,.1f} images an epoch, mean of {self.epochs} epochs")
        return "\n".join(lines)


def exposure(dataset: DetectionDataset, sampler: Sampler, *, epochs: int = 10, seed: int = 0) -> Exposure:
    """Draw the orders of some epochs and count how often each class is shown."""
    shown = image_classes(dataset)
    repeats, rows, classes = sampler.repeats(dataset), _rows(shown), len(dataset.classes)
    realized = np.zeros(classes)
    length = 0
    for epoch in range(epochs):
        order = epoch_order(repeats, seed=seed, epoch=epoch, shuffle=False)
        times = np.bincount(order, minlength=len(dataset))
        realized += np.bincount(shown.values, times[rows], minlength=classes)
        length += len(order)
    return Exposure(
        classes=tuple(dataset.classes),
        images=np.bincount(shown.values, minlength=classes),
        target=np.bincount(shown.values, repeats[rows], minlength=classes),
        realized=realized / epochs,
        length=length / epochs,
        epochs=epochs,
    )


def _rows(shown: Ragged) -> np.ndarray:
    return np.repeat(np.arange(len(shown)), np.diff(shown.offsets))


def is_portrait(dataset: DetectionDataset) -> np.ndarray:
    """(I,) bool: higher than wide."""
    columns = getattr(dataset, "annotations", None)
    if isinstance(columns, Annotations):
        sizes: np.ndarray | Sequence[tuple[int, int]] = columns.image_sizes
    else:
        sizes = [dataset.info(i).size for i in range(len(dataset))]
    sizes = np.asarray(sizes).reshape(-1, 2)
    return sizes[:, 0] > sizes[:, 1]
