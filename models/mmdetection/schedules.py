"""Optimizer, schedule and sampling of MMDetection as a recipe's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..recipe import Optimizer, ParameterRule, Sampling, Schedule
from .settings import ConfigError, Settings


@dataclass(frozen=True)
class Run:
    """How long, how fast and on how many images a configuration trains."""

    optimizer: Optimizer
    schedule: Schedule
    sampling: Sampling
    images_per_device: int
    devices: int
    precision: str


def run_of(config: Settings) -> Run:
    """The training of a configuration of 2.x or 3.x.

    Raises:
        ConfigError: when something of it is not translated.
    """
    wrapper = config.part("optim_wrapper") if "optim_wrapper" in config else config
    optimizer = _optimizer(wrapper)
    half = config.get("fp16") is not None
    if wrapper is not config:
        half = wrapper.only("type", "OptimWrapper", "AmpOptimWrapper") == "AmpOptimWrapper"
        wrapper.ignored("loss_scale", "dtype", "accumulative_counts")
    config.ignored("fp16")
    images = _images_per_device(config)
    return Run(
        optimizer=optimizer,
        schedule=_schedule_3x(config) if "param_scheduler" in config else _schedule(config),
        sampling=_sampling(config),
        images_per_device=images,
        devices=_devices(config, images),
        precision="16" if half else "32",
    )


def _optimizer(owner: Settings) -> Optimizer:
    given = owner.part("optimizer")
    kind = given.only("type", "SGD", "Adam", "AdamW").lower()
    given.only("nesterov", False)
    given.only("betas", (0.9, 0.999))
    given.only("eps", 1e-8)
    factors: dict[str, Any] = {}
    place = given if "paramwise_cfg" in given else owner
    if place.get("paramwise_cfg") is not None:
        rules = place.part("paramwise_cfg")
        rules.ignored("bypass_duplicate")
        factors = {
            "norm_decay_factor": float(rules.take("norm_decay_mult", 1.0)),
            "bias_lr_factor": float(rules.take("bias_lr_mult", 1.0)),
            "bias_decay_factor": float(rules.take("bias_decay_mult", 1.0)),
            "rules": _rules(rules),
        }
    place.ignored("paramwise_cfg")
    decay = 0.0 if kind in ("sgd", "adam") else 0.01
    return Optimizer(
        kind=kind,
        lr=given.take("lr"),
        momentum=given.take("momentum", 0.0) if kind == "sgd" else 0.9,
        weight_decay=given.take("weight_decay", decay),
        clip_norm=_clipping(owner),
        **factors,
    )


def _rules(rules: Settings) -> tuple[ParameterRule, ...]:
    if rules.get("custom_keys") is None:
        rules.ignored("custom_keys")
        return ()
    keys = rules.part("custom_keys")
    found = []
    for pattern in keys:
        one = keys.part(pattern)
        found.append(ParameterRule(pattern, float(one.take("lr_mult", 1.0)), float(one.take("decay_mult", 1.0))))
    return tuple(found)


def _clipping(owner: Settings) -> float | None:
    if "optimizer_config" in owner:
        hook = owner.part("optimizer_config")
        hook.ignored("type", "_delete_")
        clip = hook.take("grad_clip", None)
    else:
        clip = owner.take("clip_grad", None)
    if clip is None:
        return None
    clip.only("norm_type", 2)
    return float(clip.take("max_norm"))


def _schedule(config: Settings) -> Schedule:
    given = config.part("lr_config")
    epochs = _epochs(config)
    policy = given.only("policy", "step", "CosineAnnealing")
    given.only("by_epoch", True)
    given.only("warmup_by_epoch", False)
    warmup = given.take("warmup", None)
    warm: dict[str, Any] = {"warmup_steps": 0}
    if warmup is not None:
        warm = {
            "warmup": given.only("warmup", "linear", "constant"),
            "warmup_steps": given.take("warmup_iters"),
            "warmup_factor": given.take("warmup_ratio", 0.1),
        }
    given.ignored("warmup_iters", "warmup_ratio")
    if policy == "CosineAnnealing":
        given.only("min_lr", 0, 0.0)
        given.only("min_lr_ratio", None)
        return Schedule(epochs=epochs, drops=(), decay="cosine", **warm)
    steps = given.take("step")
    drops = tuple(steps) if isinstance(steps, (list, tuple)) else tuple(range(steps, epochs, steps))
    return Schedule(epochs=epochs, drops=drops, drop_factor=given.take("gamma", 0.1), **warm)


def _epochs(config: Settings) -> int:
    if "runner" in config:
        runner = config.part("runner")
        runner.only("type", "EpochBasedRunner")
        config.ignored("total_epochs")
        return runner.take("max_epochs")
    return config.take("total_epochs")


def _schedule_3x(config: Settings) -> Schedule:
    loop = config.part("train_cfg")
    loop.only("type", "EpochBasedTrainLoop", default="EpochBasedTrainLoop")
    loop.only("by_epoch", True)
    loop.ignored("val_interval", "val_begin", "dynamic_intervals")
    epochs = loop.take("max_epochs")
    fields: dict[str, Any] = {"epochs": epochs, "drops": (), "warmup_steps": 0}
    for one in config.take("param_scheduler"):
        kind = one.only("type", "LinearLR", "ConstantLR", "MultiStepLR", "CosineAnnealingLR")
        one.only("begin", 0, default=0) if kind != "CosineAnnealingLR" else one.ignored("begin")
        if kind in ("LinearLR", "ConstantLR"):
            one.only("by_epoch", False)
            factor = one.take("start_factor", 1 / 3) if kind == "LinearLR" else one.take("factor", 1 / 3)
            if kind == "LinearLR":
                one.only("end_factor", 1.0, 1)
            fields |= {
                "warmup": "linear" if kind == "LinearLR" else "constant",
                "warmup_steps": one.take("end"),
                "warmup_factor": factor,
            }
        elif kind == "MultiStepLR":
            one.only("by_epoch", True)
            one.only("end", epochs, default=epochs)
            fields |= {"drops": tuple(one.take("milestones")), "drop_factor": one.take("gamma", 0.1)}
        else:
            one.only("eta_min", 0, 0.0)
            one.only("eta_min_ratio", None)
            one.only("by_epoch", True)
            one.ignored("T_max", "end", "convert_to_iter_based")
            fields["decay"] = "cosine"
    return Schedule(**fields)


def _images_per_device(config: Settings) -> int:
    if "train_dataloader" in config:
        return config.part("train_dataloader").take("batch_size")
    data = config.part("data")
    return data.take("samples_per_gpu") if "samples_per_gpu" in data else data.take("imgs_per_gpu")


def _devices(config: Settings, images: int) -> int:
    """For how many devices the learning rate is meant: those of the run, of ``auto_scale_lr``, else the usual eight."""
    if config.get("gpu_ids") is not None:
        return max(1, len(config.take("gpu_ids")))
    scale = config.get("auto_scale_lr")
    config.ignored("auto_scale_lr")
    base = scale.get("base_batch_size") if isinstance(scale, Settings) else None
    return 8 if not base else max(1, base // images)


def _sampling(config: Settings) -> Sampling:
    if "data" in config:
        found = config.part("data").get("train")
    else:
        found = config.part("train_dataloader").get("dataset")
    found = found[0] if isinstance(found, (list, tuple)) and found else found
    times, threshold = 1, None
    while isinstance(found, Settings) and "dataset" in found:
        kind = found.get("type")
        if kind == "RepeatDataset":
            times *= found["times"]
        elif kind == "ClassBalancedDataset":
            threshold = found["oversample_thr"]
        elif kind not in ("MultiImageMixDataset", "ConcatDataset"):
            raise ConfigError(f"{found.place('type')} = {kind!r}: this wrapper of a dataset is not translated")
        found = found["dataset"]
        found = found[0] if isinstance(found, (list, tuple)) else found
    return Sampling(repeat_factor=threshold, repeats=times)
