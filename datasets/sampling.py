"""How often each image is seen in an epoch, and in which order.

Shape letters: I images, K classes, E places in an epoch's order, T images of one step on all devices together.

A sampler is made without a dataset and says of one how often each image should be seen, as a number that may be
fractional: ``ClassBalanced().repeats(dataset)``. Every epoch the fractions are resolved afresh. All draws are
functions of (seed, epoch): a run that is resumed, or spread over another number of devices, sees the same order.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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


class _MadeWithoutDataset:
    """Base of the samplers of this file: where a dataset is given to a constructor, the error says where it belongs."""

    def __new__(cls, *given: Any, **_: Any) -> Any:
        if any(isinstance(value, DetectionDataset) for value in given):
            name = cls.__name__
            raise DatasetError(
                f"{name} is made without a dataset",
                field="dataset",
                expected=f"sdk.fit(dataset, model, sampling={name}(...)), or {name}(...).repeats(dataset)",
            )
        return super().__new__(cls)


@dataclass(frozen=True)
class RepeatFactor(_MadeWithoutDataset):
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
        return _largest(shown, np.sqrt(self.threshold / np.maximum(frequency, 1e-300)), len(dataset))


@dataclass(frozen=True)
class InstanceRepeatFactor(_MadeWithoutDataset):
    """Instance-aware repeat factors (Yaman et al., "Instance-Aware Repeat Factor Sampling for Long-Tailed Object
    Detection", 2023): as ``RepeatFactor``, with the geometric mean of a class's share of the images and its share of
    the objects in place of f(c), so that a class that crowds into few images counts as less rare."""

    threshold: float = 0.001

    def __post_init__(self) -> None:
        RepeatFactor(self.threshold)

    def repeats(self, dataset: DetectionDataset) -> np.ndarray:
        shown, classes = image_classes(dataset), len(dataset.classes)
        images = np.bincount(shown.values, minlength=classes) / max(len(dataset), 1)
        objects = class_objects(dataset)
        frequency = np.sqrt(images * objects / max(objects.sum(), 1))
        return _largest(shown, np.sqrt(self.threshold / np.maximum(frequency, 1e-300)), len(dataset))


@dataclass(frozen=True)
class ClassBalanced(_MadeWithoutDataset):
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
class ClassShares(_MadeWithoutDataset):
    """Wished shares of the showings: ``{"person": 0.2}`` shows images with a person as every fifth showing of a class.

    A showing is one class on one image, once. Classes that are not named share the rest as they do in the data. Since
    an image cannot be split, the shares are met as far as the images allow: found by iterative proportional fitting
    (Deming and Stephan, 1940), each image weighing the mean of its classes' factors, at most ``most`` times the mean.
    Images without objects are seen once; in expectation an epoch has as many images as the dataset.
    """

    shares: Mapping[str, float]
    most: float = 50.0

    def __post_init__(self) -> None:
        values = list(self.shares.values())
        if not values or min(values) < 0 or sum(values) > 1 + 1e-9:
            raise DatasetError(
                "not shares", field="shares", found=dict(self.shares), expected="0 or more, at most 1 in all"
            )

    def repeats(self, dataset: DetectionDataset) -> np.ndarray:
        names = list(map(str, dataset.classes))
        unknown = [name for name in self.shares if name not in names]
        if unknown:
            close = difflib.get_close_matches(unknown[0], names, n=3)
            raise DatasetError(
                "no such class", field="shares", found=unknown[0], expected=" or ".join(close or names[:10])
            )
        shown = image_classes(dataset)
        rows, counts = _rows(shown), np.bincount(shown.values, minlength=len(names)).astype(float)
        wished = self._wished(names, counts)
        lengths = np.maximum(np.diff(shown.offsets), 1)
        factor = np.ones(len(names))
        repeats = np.ones(len(dataset))
        for _ in range(200):
            repeats = np.bincount(rows, factor[shown.values], minlength=len(dataset)) / lengths
            repeats[np.diff(shown.offsets) == 0] = 1.0
            with_objects = np.diff(shown.offsets) > 0
            repeats[with_objects] *= with_objects.sum() / max(repeats[with_objects].sum(), 1e-300)
            repeats = np.minimum(repeats, self.most)
            got = np.bincount(shown.values, repeats[rows], minlength=len(names))
            got = got / max(got.sum(), 1e-300)
            factor *= np.where(counts > 0, (wished + 1e-12) / (got + 1e-12), 1.0)
            factor /= factor[counts > 0].mean() if (counts > 0).any() else 1.0
        return repeats

    def _wished(self, names: Sequence[str], counts: np.ndarray) -> np.ndarray:
        """(K,) share of each class; those without images get none."""
        given = np.array([self.shares.get(name, np.nan) for name in names])
        free = np.isnan(given) & (counts > 0)
        wished = np.where(np.isnan(given) | (counts == 0), 0.0, given)
        if free.any():
            wished[free] = max(0.0, 1 - wished.sum()) * counts[free] / counts[free].sum()
        return wished / max(wished.sum(), 1e-300)


@dataclass(frozen=True)
class AttributeShares(_MadeWithoutDataset):
    """Wished shares of images by an attribute, such as day and night.

    values: the attribute of each image, or a function of its index. shares: of each value; equal ones where absent.
    Values that have no share are left out.
    """

    values: Sequence[Hashable] | Callable[[int], Hashable]
    shares: Mapping[Hashable, float] | None = None

    def repeats(self, dataset: DetectionDataset) -> np.ndarray:
        values = [self.values(i) for i in range(len(dataset))] if callable(self.values) else list(self.values)
        if len(values) != len(dataset):
            raise DatasetError("not one value an image", field="values", found=len(values), expected=len(dataset))
        counts = Counter(values)
        shares = dict.fromkeys(counts, 1.0) if self.shares is None else dict(self.shares)
        missing = [value for value in shares if value not in counts]
        if missing or not sum(shares.values()) > 0 or min(shares.values()) < 0:
            found = missing or shares
            raise DatasetError(
                "not shares of values that are there", field="shares", found=found, expected=list(counts)
            )
        scale = len(dataset) / sum(shares.values())
        return np.array([scale * shares.get(value, 0.0) / counts[value] for value in values])


@dataclass(frozen=True)
class OnlyWithObjects(_MadeWithoutDataset):
    """Leaves out images without objects that count; their indices stay."""

    def repeats(self, dataset: DetectionDataset) -> np.ndarray:
        return (np.diff(image_classes(dataset).offsets) > 0).astype(np.float64)


@dataclass(frozen=True)
class Repeated(_MadeWithoutDataset):
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


NAMES = ("recipe", "uniform", "class_balanced", "repeat_factor", "instance_repeat_factor", "with_objects")
"""What ``sampling`` may be called."""


def sampler_of(given: Any) -> Sampler | None:
    """The sampler that a user names; none for ``uniform``.

    Args:
        given: ``uniform``, ``class_balanced``, ``repeat_factor``, ``instance_repeat_factor`` (either with a threshold,
            as in ``repeat_factor=0.01``), ``with_objects``; a mapping from class names to shares of the showings; or
            an object with ``repeats(dataset)``.

    Raises:
        DatasetError: when it is none of these.
    """
    if isinstance(given, Mapping):
        return ClassShares(dict(given))
    if isinstance(given, str):
        name, equals, threshold = given.partition("=")
        plain: dict[str, Sampler | None] = {
            "uniform": None,
            "class_balanced": ClassBalanced(),
            "with_objects": OnlyWithObjects(),
        }
        if name in plain and not equals:
            return plain[name]
        if name in ("repeat_factor", "instance_repeat_factor"):
            made = RepeatFactor if name == "repeat_factor" else InstanceRepeatFactor
            try:
                return made(float(threshold)) if equals else made()
            except ValueError as error:
                raise DatasetError("no threshold", field="sampling", found=given, expected=f"{name}=0.001") from error
        close = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.0)[0]
        raise DatasetError("no such sampling", field="sampling", found=given, expected=f"{', '.join(NAMES)} ({close}?)")
    if isinstance(given, type):
        name = given.__name__
        raise DatasetError("a class, not a sampler", field="sampling", found=name, expected=f"{name}()")
    if callable(getattr(given, "repeats", None)):
        return given
    raise DatasetError(
        "no sampling", field="sampling", found=type(given).__name__, expected=f"{', '.join(NAMES)}, shares or a sampler"
    )


def class_objects(dataset: DetectionDataset) -> np.ndarray:
    """(K,) objects that count, of each class."""
    columns = getattr(dataset, "annotations", None)
    if isinstance(columns, Annotations):
        labels = columns.labels[columns.usable & ~columns.ignore]
    else:
        each = [np.asarray(dataset.info(i).labels) for i in range(len(dataset))]
        labels = np.concatenate(each) if each else np.zeros(0, np.int64)
    return np.bincount(labels.astype(np.int64), minlength=len(dataset.classes))


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

    images: (K,) images that show the class. objects: (K,) objects that count. target: (K,) expected showings an epoch.
    realized: (K,) mean showings an epoch over ``epochs`` drawn ones. length: mean images an epoch.
    """

    classes: tuple[str, ...]
    images: np.ndarray
    objects: np.ndarray
    target: np.ndarray
    realized: np.ndarray
    length: float
    epochs: int

    @property
    def largest_deviation(self) -> float:
        """Largest relative difference between realized and target over the classes that have a target."""
        wanted = self.target > 0
        return float(np.max(np.abs(self.realized[wanted] / self.target[wanted] - 1), initial=0.0))

    def to_dict(self) -> dict[str, Any]:
        """By class: images, objects, showings an epoch before and with the sampler, and as they happened."""
        rows = range(len(self.classes))
        return {
            "length": self.length,
            "epochs": self.epochs,
            "classes": {
                str(self.classes[row]): {
                    "images": int(self.images[row]),
                    "objects": int(self.objects[row]),
                    "target": round(float(self.target[row]), 3),
                    "realized": round(float(self.realized[row]), 3),
                }
                for row in rows
            },
        }

    def __str__(self) -> str:
        width = max([len(name) for name in self.classes] + [5])
        lines = [f"{'class':<{width}} {'images':>9} {'objects':>9} {'target':>11} {'realized':>11}"]
        for row in np.argsort(self.images, kind="stable"):
            counts = f"{self.images[row]:>9,} {self.objects[row]:>9,}"
            showings = f"{self.target[row]:>11,.1f} {self.realized[row]:>11,.1f}"
            lines.append(f"{self.classes[row]:<{width}} {counts} {showings}")
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
        objects=class_objects(dataset),
        target=np.bincount(shown.values, repeats[rows], minlength=classes),
        realized=realized / epochs,
        length=length / epochs,
        epochs=epochs,
    )


def _largest(shown: Ragged, of_class: np.ndarray, images: int) -> np.ndarray:
    """(I,) the largest factor of an image's classes, at least one."""
    repeats = np.ones(images)
    np.maximum.at(repeats, _rows(shown), of_class[shown.values])
    return repeats


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
