"""The published pipelines in terms of the SDK's transforms. Every option of every step is read or refused."""

from dataclasses import dataclass

from sdk.datasets.transforms import (
    Albumentations,
    CenterCropPad,
    DropSmallBoxes,
    Expand,
    Flip,
    InstaBoost,
    MinIoUCrop,
    OneOf,
    PadTo,
    PadToMultiple,
    PhotometricDistortion,
    Preprocessing,
    RandomCrop,
    Resize,
    ScaleJitter,
    Shift,
    TopProposals,
    Transform,
)


@dataclass
class Pixels:
    """What a pipeline says of normalization and padding, collected as its steps are read."""

    mean: tuple = ()
    std: tuple = ()
    channels: str = ""
    divisor: int = 1


def pairs(sizes):
    return tuple(tuple(size) for size in (sizes if isinstance(sizes[0], list) else [sizes]))


def resize(img_scale, keep_ratio, multiscale_mode="range", ratio_range=None, override=True):
    """Two sizes without a mode are a range in the published library. ``override`` allows a second resize."""
    sizes = pairs(img_scale)
    if ratio_range is not None:
        return ScaleJitter(sizes[0], tuple(ratio_range), keep_ratio)
    if not keep_ratio:
        return Resize(sizes, keep_ratio=False)
    return Resize(sizes, draw=multiscale_mode if len(sizes) > 1 else "value")


def crop(crop_size, crop_type="absolute", allow_negative_crop=False):
    """Sizes are (height, width) there and (width, height) here; ranges are (least, most) in both."""
    size = tuple(crop_size) if crop_type == "absolute_range" else tuple(crop_size[::-1])
    return RandomCrop(size, crop_type, allow_negative_crop)


def expand(mean, to_rgb, ratio_range):
    assert to_rgb
    return Expand(tuple(ratio_range), fill=tuple(mean))


def center_crop_pad(crop_size, ratios, test_mode, test_pad_mode, mean, std, to_rgb):
    assert not test_mode
    assert to_rgb
    return CenterCropPad(tuple(crop_size[::-1]), tuple(ratios), fill=tuple(mean))


def distort(brightness_delta=32, contrast_range=(0.5, 1.5), saturation_range=(0.5, 1.5), hue_delta=18):
    return PhotometricDistortion(brightness_delta, tuple(contrast_range), tuple(saturation_range), hue_delta)


def instaboost(action_candidate, action_prob, scale, dx, dy, theta, color_prob, hflag, aug_ratio):
    assert dict(zip(action_candidate, action_prob)) == {"normal": 1, "horizontal": 0, "skip": 0}
    assert not hflag
    return InstaBoost(aug_ratio, tuple(scale), dx, dy, tuple(theta), color_prob)


def albumentations(transforms, bbox_params, keymap, update_pad_shape, skip_img_without_anno):
    """The policy itself is spelled out in ``Albumentations.published``; here its steps are only named."""
    assert [step["type"] for step in transforms] == [
        "ShiftScaleRotate",
        "RandomBrightnessContrast",
        "OneOf",
        "JpegCompression",
        "ChannelShuffle",
        "OneOf",
    ]
    assert bbox_params["min_visibility"] == 0
    return Albumentations.published()


def one_of(policies):
    return OneOf(
        tuple(
            tuple(STEPS[step["type"]](**{k: v for k, v in step.items() if k != "type"}) for step in policy)
            for policy in policies
        )
    )


STEPS = {
    "Resize": resize,
    "RandomFlip": lambda flip_ratio=0.0: Flip(flip_ratio),
    "RandomCrop": crop,
    "MinIoURandomCrop": lambda min_ious, min_crop_size: MinIoUCrop(tuple(min_ious), min_crop_size),
    "RandomCenterCropPad": center_crop_pad,
    "Expand": expand,
    "PhotoMetricDistortion": distort,
    "RandomShift": lambda shift_ratio, max_shift_px: Shift(shift_ratio, max_shift_px),
    "FilterAnnotations": lambda min_gt_bbox_wh: DropSmallBoxes(tuple(min_gt_bbox_wh)),
    "LoadProposals": lambda num_max_proposals: TopProposals(num_max_proposals),
    "InstaBoost": instaboost,
    "Albu": albumentations,
    "AutoAugment": one_of,
}

# How annotations are loaded: masks and semantic maps are the recipe's ``needs_masks`` and ``needs_semantic``. Those
# called boxes-from-masks keep polygons as polygons, which masks here always do.
LOADING = {
    "load with_bbox",
    "load with_bbox+with_mask",
    "load with_bbox+with_mask+with_seg",
    "load with_bbox+with_mask boxes-from-masks",
    "load with_bbox boxes-from-masks",
}


def read_normalize(pixels: Pixels, mean, std, to_rgb):
    pixels.mean, pixels.std = tuple(map(float, mean)), tuple(map(float, std))
    pixels.channels = "rgb" if to_rgb else "bgr"


def express_train(row: dict) -> tuple[tuple[Transform, ...], Pixels]:
    """The training transforms of one row, and the normalization of its batches."""
    transforms, pixels = [], Pixels()
    steps = row["train"]
    last = max(i for i, step in enumerate(steps) if isinstance(step, dict) and step["step"] in STEPS)
    for i, step in enumerate(steps):
        if isinstance(step, str):
            assert step in LOADING, step
            continue
        name, options = step["step"], {k: v for k, v in step.items() if k != "step"}
        if name == "Normalize":
            read_normalize(pixels, **options)
        elif name == "Pad" and "size" in options:
            transforms.append(PadTo(tuple(options["size"][::-1])))
        elif name == "Pad" and i < last:
            transforms.append(PadToMultiple(options["size_divisor"]))
        elif name == "Pad":
            pixels.divisor = options["size_divisor"]
        elif name == "SegRescale":
            assert options == {"scale_factor": 0.125}  # heads read the full-size map at their own stride
        else:
            transforms.append(STEPS[name](**options))
    return tuple(transforms), pixels


def express_test(row: dict) -> Preprocessing:
    """The test-time preprocessing of one row."""
    pixels, centered, keep_ratio, size = Pixels(), False, True, None
    for step in row["test"]:
        if step["step"] == "LoadProposals":
            continue
        assert step["step"] == "test"
        size = None if step["scales"] == 1.0 else tuple(step["scales"])
        for inner in step["inner"]:
            name, options = inner["step"], {k: v for k, v in inner.items() if k != "step"}
            if name == "Resize":
                keep_ratio = options.get("keep_ratio", True)
            elif name == "Normalize":
                read_normalize(pixels, **options)
            elif name == "Pad":
                pixels.divisor = options["size_divisor"]
            elif name == "RandomCenterCropPad":
                assert options["test_pad_mode"] == ["logical_or", 127]
                centered, pixels.divisor = True, 128
            else:
                # Flips are the recipe's ``test_flip``; the rest only changes containers.
                assert name in ("RandomFlip", "ToTensor", "ToDataContainer"), name
    return Preprocessing(size, keep_ratio, pixels.mean, pixels.std, pixels.channels, pixels.divisor, centered)
