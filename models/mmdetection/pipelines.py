"""Pipelines of MMDetection as preprocessing and training transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...datasets.transforms import (
    CenterCropPad,
    DropSmallBoxes,
    Expand,
    Flip,
    InstaBoost,
    MinIoUCrop,
    OneOf,
    PadTo,
    PhotometricDistortion,
    Preprocessing,
    RandomCrop,
    Resize,
    ScaleJitter,
    Shift,
    TopProposals,
    Transform,
)
from .settings import ConfigError, Settings

SILENT = (
    "LoadImageFromFile",
    "LoadImageFromWebcam",
    "DefaultFormatBundle",
    "ImageToTensor",
    "ToTensor",
    "ToDataContainer",
    "Collect",
    "PackDetInputs",
    "LoadAnnotations",
    "SegRescale",
    "ToFloat32",
)
"""What a dataset and a batch do anyway."""


@dataclass(frozen=True)
class Pixels:
    """How images are tested: their preprocessing, and whether their mirror image is looked at too."""

    preprocessing: Preprocessing
    flip: bool = False


def test_pixels(config: Settings) -> Pixels:
    """The preprocessing of the test pipeline, of 2.x or of 3.x.

    Raises:
        ConfigError: when there is no test pipeline, or a step of it is not translated.
    """
    preprocessor = _preprocessor(config)
    steps = _pipeline(config, "test", "val")
    if steps is None:
        raise ConfigError(
            f"{config.file or 'configuration'}: neither data.test.pipeline nor test_dataloader says "
            "how images are prepared"
        )
    flip, outer = False, None
    for step in steps:
        if step.get("type") == "MultiScaleFlipAug":
            outer = step
    size: Any = None
    if outer is not None:
        step = outer
        step.take("type")
        flip = step.take("flip", False)
        step.only("flip_direction", "horizontal", ["horizontal"])
        if "scale_factor" in step:
            step.only("scale_factor", 1.0, 1)
        else:
            size = step.take("img_scale")
            if isinstance(size[0], (list, tuple)):
                if len(size) != 1:
                    raise step.untranslated("img_scale", "several test sizes; give one, and scales by models.TTA")
                size = size[0]
        steps = [one for one in steps if one is not outer] + list(step.take("transforms"))
    preprocessing = replace(preprocessor, size=None if size is None else tuple(size))
    for step in steps:
        preprocessing = _test_step(step, preprocessing)
    return Pixels(preprocessing, flip)


def _test_step(step: Settings, pixels: Preprocessing) -> Preprocessing:
    kind = step.take("type")
    if kind in SILENT or kind in ("LoadProposals", "RandomFlip", "FixShapeResize"):
        _pass(step)
        return pixels
    if kind == "Resize":
        keep = step.take("keep_ratio", not pixels.centered if "keep_ratio" not in step else True)
        size = next((step.take(key) for key in ("scale", "img_scale") if key in step), pixels.size)
        step.only("backend", "cv2")
        # Without a size of its own and without keep_ratio an image keeps the size it has.
        return replace(pixels, size=None if size is None else tuple(size), keep_ratio=True if size is None else keep)
    if kind == "Normalize":
        return replace(pixels, **_normalization(step))
    if kind == "Pad":
        return replace(pixels, divisor=_divisor(step))
    if kind == "RandomCenterCropPad":
        step.only("test_mode", True)
        step.only("test_pad_mode", ["logical_or", 127])
        _pass(step)
        return replace(pixels, centered=True, divisor=128)
    raise step.untranslated("type", "this step of the test pipeline is not translated")


def _divisor(step: Settings) -> int:
    for key in ("size", "pad_to_square"):
        if step.get(key):
            raise step.untranslated(key, "expected size_divisor")
    value = step.take("pad_val", 0)
    if isinstance(value, Settings):
        value = value.take("img", 0)
    if value not in (0, 0.0) and list(value) != [0, 0, 0]:
        raise step.untranslated("pad_val", "images are padded with zeros after normalization")
    step.ignored("size", "pad_to_square")
    return step.take("size_divisor", None) or 1


def _normalization(step: Settings, to_rgb: str = "to_rgb") -> dict[str, Any]:
    return {
        "mean": tuple(float(value) for value in step.take("mean")),
        "std": tuple(float(value) for value in step.take("std")),
        "channels": "rgb" if step.take(to_rgb, to_rgb == "to_rgb") else "bgr",
    }


def _preprocessor(config: Settings) -> Preprocessing:
    """What ``data_preprocessor`` of 3.x does; what is in the pipelines of 2.x follows from their steps."""
    plain = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), channels="bgr", divisor=1)
    model = config.part("model")
    owner = model if "data_preprocessor" in model else config
    if owner.get("data_preprocessor") is None:
        owner.ignored("data_preprocessor")
        return plain
    step = owner.part("data_preprocessor")
    step.only("type", "DetDataPreprocessor")
    step.only("batch_augments", None, [])
    step.only("boxtype2tensor", True)
    step.ignored("pad_mask", "mask_pad_value", "pad_seg", "seg_pad_value", "non_blocking")
    if step.take("rgb_to_bgr", False):
        raise step.untranslated("rgb_to_bgr")
    if step.only("pad_value", 0, 0.0, default=0):
        raise step.untranslated("pad_value")
    given = _normalization(step, "bgr_to_rgb") if step.get("mean") is not None else {}
    step.ignored("mean", "std", "bgr_to_rgb")
    return replace(plain, divisor=step.take("pad_size_divisor", 1), **given)


def _pipeline(config: Settings, *splits: str) -> list[Settings] | None:
    """The steps of the first of the splits that has a pipeline."""
    for split in splits:
        found = _dataset(config, split)
        while isinstance(found, Settings) and "pipeline" not in found and "dataset" in found:
            found = found["dataset"]
            found = found[0] if isinstance(found, (list, tuple)) else found
        if isinstance(found, Settings) and "pipeline" in found:
            steps = found.take("pipeline")
            return [step for step in steps if isinstance(step, Settings)]
    for split in splits:
        if f"{split}_pipeline" in config:
            return [step for step in config.take(f"{split}_pipeline") if isinstance(step, Settings)]
    return None


def _dataset(config: Settings, split: str) -> Any:
    """The dataset settings of a split, which in 2.x may also be the first of a list."""
    data = config.get("data")
    if isinstance(data, Settings) and split in data:
        found = data[split]
        return found[0] if isinstance(found, (list, tuple)) and found else found
    loader = config.get(f"{split}_dataloader")
    return loader.get("dataset") if isinstance(loader, Settings) else None


def training_transforms(config: Settings) -> tuple[Transform, ...]:
    """The transforms of the training pipeline; none where the configuration has no such pipeline."""
    return _transforms(_pipeline(config, "train") or ())


def _transforms(steps: Sequence[Settings]) -> tuple[Transform, ...]:
    made: list[Transform] = []
    for step in steps:
        kind = step.take("type")
        if kind in SILENT or kind == "Normalize":
            # Normalization is the same as in the test pipeline, and happens to the batch.
            _pass(step)
            continue
        if kind not in TRANSFORMS:
            raise step.untranslated("type", f"expected {', '.join((*SILENT, *TRANSFORMS))}")
        one = TRANSFORMS[kind](step)
        if one is not None:
            made.append(one)
    return tuple(made)


def _pass(step: Settings) -> None:
    step.ignored(*step)


def _resize(step: Settings) -> Transform:
    sizes = step.take("img_scale") if "img_scale" in step else step.take("scale")
    keep = step.take("keep_ratio", True)
    step.only("backend", "cv2")
    step.ignored("override")
    single = not isinstance(sizes[0], (list, tuple))
    pairs = tuple(_edges(size, keep) for size in ([sizes] if single else sizes))
    mode = step.take("multiscale_mode", "range")
    if step.get("ratio_range") is not None:
        return ScaleJitter(pairs[0], tuple(step.take("ratio_range")), keep)
    step.ignored("ratio_range")
    return Resize(pairs, keep, draw="value" if len(pairs) == 1 else mode)


def _edges(size: Sequence[int], keep_ratio: bool) -> tuple[int, int]:
    """(long, short) edges, which come in either order, or (width, height) where the ratio is not kept."""
    first, second = size
    return (max(first, second), min(first, second)) if keep_ratio else (first, second)


def _choice_resize(step: Settings) -> Transform:
    _resize_type(step)
    keep = step.take("keep_ratio", True)
    return Resize(tuple(_edges(size, keep) for size in step.take("scales")), keep)


def _random_resize(step: Settings) -> Transform:
    _resize_type(step)
    keep = step.take("keep_ratio", True)
    scale = step.take("scale")
    if step.get("ratio_range") is not None:
        return ScaleJitter(tuple(scale), tuple(step.take("ratio_range")), keep)
    step.ignored("ratio_range")
    return Resize(tuple(_edges(size, keep) for size in scale), keep, draw="range")


def _resize_type(step: Settings) -> None:
    step.only("resize_type", "Resize", "mmdet.Resize")
    step.only("resize_cfg", None)


def _flip(step: Settings) -> Transform | None:
    ratio = step.take("prob") if "prob" in step else step.take("flip_ratio", None)
    direction = step.take("direction", "horizontal")
    if isinstance(direction, (list, tuple)):
        if len(direction) != 1:
            raise step.untranslated("direction", "expected one direction")
        direction = direction[0]
    return None if not ratio else Flip(ratio, direction)


def _crop(step: Settings) -> Transform:
    kind = step.only("crop_type", "absolute", "absolute_range", "relative", "relative_range")
    size = tuple(step.take("crop_size"))
    step.ignored("recompute_bbox", "bbox_clip_border")
    # The reference gives height and width of an absolute crop, and the ends of a range that both are drawn from.
    size = size[::-1] if kind == "absolute" else size
    return RandomCrop(size, kind, step.take("allow_negative_crop", False))  # type: ignore[arg-type]


def _distortion(step: Settings) -> Transform:
    return PhotometricDistortion(
        brightness=step.take("brightness_delta", 32),
        contrast=tuple(step.take("contrast_range", (0.5, 1.5))),
        saturation=tuple(step.take("saturation_range", (0.5, 1.5))),
        hue=step.take("hue_delta", 18),
    )


def _expand(step: Settings) -> Transform:
    mean = tuple(step.take("mean", (0, 0, 0)))
    step.only("seg_ignore_label", None)
    # Images are RGB here; the mean is that of the channels after a change of their order.
    fill = mean if step.take("to_rgb", True) else mean[::-1]
    return Expand(tuple(step.take("ratio_range", (1, 4))), step.take("prob", 0.5), fill)


def _iou_crop(step: Settings) -> Transform:
    step.ignored("bbox_clip_border")
    return MinIoUCrop(tuple(step.take("min_ious", (0.1, 0.3, 0.5, 0.7, 0.9))), step.take("min_crop_size", 0.3))


def _pad(step: Settings) -> Transform | None:
    step.ignored("size_divisor", "pad_to_square")
    value = step.take("pad_val", 0)
    if isinstance(value, Settings):
        value = value.take("img", 0)
    size = step.take("size", None)
    return None if size is None else PadTo(tuple(size)[::-1])


def _policies(step: Settings) -> Transform:
    policies = step.take("policies")
    for policy in policies:
        for one in policy:
            one.path = f"{step.path}.policies"
    return OneOf(tuple(_transforms(policy) for policy in policies))


def _center_crop(step: Settings) -> Transform:
    step.only("test_mode", False)
    step.only("test_pad_mode", None, ["logical_or", 127], default=None)
    step.ignored("mean", "std", "to_rgb", "bbox_clip_border", "test_pad_add_pix")
    return CenterCropPad(
        tuple(step.take("crop_size")), tuple(step.take("ratios", (0.9, 1.0, 1.1))), step.take("border", 128)
    )


def _insta_boost(step: Settings) -> Transform:
    step.only("action_candidate", ("normal", "horizontal", "skip"))
    step.only("action_prob", (1, 0, 0))
    step.only("hflag", False)
    return InstaBoost(
        probability=step.take("aug_ratio", 0.5),
        scale=tuple(step.take("scale", (0.8, 1.2))),
        dx=step.take("dx", 15),
        dy=step.take("dy", 15),
        theta=tuple(step.take("theta", (-1, 1))),
        color_probability=step.take("color_prob", 0.5),
    )


def _small_boxes(step: Settings) -> Transform:
    step.ignored("keep_empty", "by_box", "by_mask", "min_gt_mask_area")
    return DropSmallBoxes(tuple(step.take("min_gt_bbox_wh")))


def _proposals(step: Settings) -> Transform | None:
    count = step.take("num_max_proposals", None)
    return None if count is None else TopProposals(count)


def _shift(step: Settings) -> Transform:
    return Shift(
        step.take("shift_ratio", 0.5) if "prob" not in step else step.take("prob"),
        step.take("max_shift_px", 32),
        step.take("filter_thr_px", 1),
    )


TRANSFORMS: dict[str, Callable[[Settings], Transform | None]] = {
    "Resize": _resize,
    "RandomChoiceResize": _choice_resize,
    "RandomResize": _random_resize,
    "RandomFlip": _flip,
    "RandomCrop": _crop,
    "PhotoMetricDistortion": _distortion,
    "Expand": _expand,
    "MinIoURandomCrop": _iou_crop,
    "Pad": _pad,
    "AutoAugment": _policies,
    "RandomCenterCropPad": _center_crop,
    "InstaBoost": _insta_boost,
    "FilterAnnotations": _small_boxes,
    "LoadProposals": _proposals,
    "RandomShift": _shift,
}
