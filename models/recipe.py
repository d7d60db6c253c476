"""Everything that makes a published row: what is built, how it is trained, tested and where its weights lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from ..datasets.transforms import Preprocessing, Transform


@dataclass(frozen=True)
class ParameterRule:
    """Learning rate and weight decay factors of the parameters whose name contains ``pattern``; the longest wins."""

    pattern: str
    lr_factor: float = 1.0
    decay_factor: float = 1.0


@dataclass(frozen=True)
class Optimizer:
    """The optimizer at the recipe's total batch size.

    kind: ``sgd``, ``adam`` or ``adamw``. norm_decay_factor: weight decay factor of normalization layers.
    bias_lr_factor and bias_decay_factor: those of biases outside normalization layers and deformable offsets.
    """

    kind: str = "sgd"
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 1e-4
    norm_decay_factor: float = 1.0
    bias_lr_factor: float = 1.0
    bias_decay_factor: float = 1.0
    rules: tuple[ParameterRule, ...] = ()
    clip_norm: float | None = None


@dataclass(frozen=True)
class Schedule:
    """Epochs, how the learning rate falls, and the warm-up in steps.

    decay: ``step`` multiplies by ``drop_factor`` after each epoch of ``drops``; ``cosine`` falls to zero over the whole
    training (Loshchilov and Hutter, SGDR, equation 5, one period); ``one-cycle`` rises and falls (Smith and Topin).
    warmup: ``linear`` rises from ``warmup_factor`` to 1, ``constant`` stays at ``warmup_factor``.
    """

    epochs: int = 12
    drops: tuple[int, ...] = (8, 11)
    drop_factor: float = 0.1
    warmup_steps: int = 500
    warmup_factor: float = 0.001
    warmup: str = "linear"
    decay: str = "step"


@dataclass(frozen=True)
class Sampling:
    """How often an image is seen in an epoch: ``repeat_factor`` is the threshold t of repeat-factor sampling (LVIS,
    section 4), ``repeats`` the number of times that the whole dataset is gone through."""

    repeat_factor: float | None = None
    repeats: int = 1


@dataclass(frozen=True)
class Recipe:
    """One published row.

    build: makes the detector from a class count. num_classes and dataset: what the row was trained on
    (``coco``, ``lvis_v1``, ``lvis_v0.5``, ``voc0712``, ``cityscapes``, ``wider_face``, ``deepfashion``, ``shapes``).
    classes: the subset of the dataset's classes by name, where it is one. images_per_device times devices is the
    batch size for which the learning rate is meant. weights: address of the published checkpoint, whose file name
    ends in the first eight hexadecimal digits of its SHA-256, or none. backbone_weights: name of the pretrained
    backbone. start_from: address of the detector checkpoint that training starts from.
    test_flip: scores were published with horizontal flips averaged in. published: the figures by column name, as
    in the document of that title. sync_batch_norm: statistics are shared between devices in training. ema_decay: decay
    of the exponential moving average of the weights that is scored and kept, or none. source: the configuration of
    MMDetection that it was translated from, as JSON, or none.
    """

    name: str
    build: Callable[[int], nn.Module]
    num_classes: int = 80
    dataset: str = "coco"
    classes: tuple[str, ...] | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    train_transforms: tuple[Transform, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    images_per_device: int = 2
    devices: int = 8
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    precision: str = "32"
    ema_decay: float | None = None
    sync_batch_norm: bool = False
    test_flip: bool = False
    needs_masks: bool = False
    needs_semantic: bool = False
    needs_proposals: bool = False
    backbone_weights: str | None = None
    start_from: str | None = None
    weights: str | None = None
    source: str | None = None
    document: str = ""
    published: Mapping[str, float] = field(default_factory=dict)

    @property
    def sha256_prefix(self) -> str | None:
        """The first eight hexadecimal digits of the checkpoint's SHA-256, as its file name says."""
        return None if self.weights is None else self.weights.rsplit("-", 1)[-1].removesuffix(".pth")

    @property
    def starting_weights(self) -> str | None:
        """What ``models.create`` takes as ``weights`` to start a training from: the published checkpoint; without one
        the pretrained backbone; without that nothing, which is None."""
        if self.weights is not None:
            return "published"
        return None if self.backbone_weights is None and self.start_from is None else "backbone"
