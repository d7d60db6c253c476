"""An exported file as a detector.

Shape letters: B images, H x W pixels, M detections of an image at most.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets.transforms import Preprocessing
from ..errors import RunError
from ..models.recipe import Recipe
from ..models.structures import Detections, ImageBatch
from ..ops.paste_masks import paste_masks
from ..runtime import METADATA
from .weights import Trained

if TYPE_CHECKING:
    from os import PathLike

EXPORTED = (".onnx", ".pt2", ".xml")
"""How the names of exported files end."""
OUTPUTS = ("boxes", "scores", "labels", "count")
OPENVINO_METADATA = ("sdk", "json")
"""Where OpenVINO's files carry what they say of themselves."""
FURTHER = ("masks", "mask_scores")
"""What detectors with masks give too."""

Call = Callable[..., Sequence[Tensor]]


class ExportedDetector(nn.Module):
    """Predicts with an exported file, on the CPU.

    call: the file's function. inside: it takes uint8 images as they are, all of one size. precision: ``float32``,
    ``float16`` or ``int8``, in which its network computes. one_image: it takes no more than one. mask_threshold:
    probability from which on a pixel belongs to a mask.
    """

    def __init__(
        self,
        call: Call,
        *,
        num_classes: int,
        inside: bool,
        precision: str = "float32",
        one_image: bool = False,
        mask_threshold: float = 0.5,
    ) -> None:
        super().__init__()
        self.call, self.num_classes, self.inside = call, num_classes, inside
        self.precision, self.one_image, self.mask_threshold = precision, one_image, mask_threshold
        # It has no weights of its own; this one stands where others are asked on which device they are.
        self.place = nn.Parameter(torch.zeros(0), requires_grad=False)

    def predict(self, images: ImageBatch) -> list[Detections]:
        """Detections of each image; where preprocessing is inside, the pixels are 0..255 and RGB."""
        if not self.inside:
            scales = torch.tensor([images.scale(index) for index in range(len(images))])
            own = _detections(self.call(images.pixels.cpu(), torch.tensor(images.sizes).float(), scales))
            return [self.pasted(one, images.output_size(index)) for index, one in enumerate(own)]
        found: dict[int, Detections] = {}
        for size in dict.fromkeys(images.sizes):
            same = [index for index, other in enumerate(images.sizes) if other == size]
            pixels = images.pixels[same, :, : size[0], : size[1]].round().to("cpu", torch.uint8).contiguous()
            parts = pixels.split(1) if self.one_image else [pixels]
            for index, one in zip(same, (one for part in parts for one in _detections(self.call(part))), strict=True):
                scale = one.boxes.new_tensor(images.scale(index) * 2)
                found[index] = self.pasted(replace(one, boxes=one.boxes / scale), images.output_size(index))
        return [found[index] for index in range(len(images))]

    def pasted(self, found: Detections, size: tuple[int, int]) -> Detections:
        """The detections with the probabilities of their boxes as masks of the whole image of (h, w)."""
        if found.masks is None:
            return found
        return replace(found, masks=paste_masks(found.masks, found.boxes, size, self.mask_threshold))


def load_exported(path: str | PathLike) -> Trained:
    """A detector from a file that ``sdk.export`` wrote.

    Raises:
        RunError: when the file is missing, broken, not written by ``sdk.export``, or its runtime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise RunError(f"{path}: no such file")
    text, call = {".onnx": _onnx, ".pt2": _program, ".xml": _openvino}[path.suffix](path)
    if not text:
        raise RunError(f"{path}: does not say what it is; give a file that sdk.export wrote")
    about = json.loads(text)
    inside = about["preprocess"] == "inside"
    # JSON has lists where these fields are tuples.
    given = about["preprocessing"].items()
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given}
    # Images go in as they are: their values stay, and nothing is added at their borders.
    as_they_are = Preprocessing(size=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), divisor=1)
    count = about["num_classes"]
    recipe = Recipe(
        name=about["model"],
        build=_not_built,
        num_classes=count,
        preprocessing=as_they_are if inside else Preprocessing(**fields),
    )
    classes, ids = about["classes"], about["category_ids"]
    return Trained(
        ExportedDetector(
            call,
            num_classes=count,
            inside=inside,
            precision=about["precision"],
            mask_threshold=about["test"].get("mask_threshold", 0.5),
        ),
        recipe,
        None if classes is None else tuple(classes),
        None if ids is None else tuple(ids),
        str(path),
    )


def _onnx(path: Path) -> tuple[str | None, Call]:
    try:
        import onnxruntime
    except ImportError as error:
        raise RunError(f"{path}: reading it needs a further package: pip install 'detection-sdk[export]'") from error
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        # ONNX Runtime has a class of its own for every fault of a file.
        raise RunError(f"{path}: not a readable ONNX file: {error}") from error
    names = [one.name for one in session.get_inputs()]

    def call(*given: Tensor) -> list[Tensor]:
        found: Any = session.run(None, {name: one.numpy() for name, one in zip(names, given, strict=True)})
        return [torch.from_numpy(np.asarray(one)) for one in found]

    return session.get_modelmeta().custom_metadata_map.get(METADATA), call


def _openvino(path: Path) -> tuple[str | None, Call]:
    try:
        import openvino
    except ImportError as error:
        raise RunError(f"{path}: reading it needs a further package: pip install 'detection-sdk[openvino]'") from error
    core, key = openvino.Core(), list(OPENVINO_METADATA)
    try:
        model = core.read_model(path)
        # Some processors would otherwise compute in bfloat16.
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except Exception as error:
        raise RunError(f"{path}: not a readable network of OpenVINO: {error}") from error

    def call(*given: Tensor) -> list[Tensor]:
        found = compiled([one.numpy() for one in given])
        return [torch.from_numpy(np.array(found[output])) for output in compiled.outputs]

    return model.get_rt_info(key).value if model.has_rt_info(key) else None, call


def _program(path: Path) -> tuple[str | None, Call]:
    # Registers the operator that the program calls.
    import torchvision  # noqa: F401

    extra: dict[str, Any] = {METADATA: ""}
    try:
        program: Any = torch.export.load(path, extra_files=extra).module()
    except Exception as error:
        # A damaged archive is met by one of many readers.
        raise RunError(f"{path}: not a readable program of torch.export: {error}") from error

    def call(*given: Tensor) -> Sequence[Tensor]:
        # A function, since a program as a part of a module refuses ``eval``.
        return program(*given)

    return extra[METADATA], call


def _detections(found: Sequence[Tensor]) -> list[Detections]:
    """What a file gives, (B, M, 4), (B, M), (B, M), (B,) and (B, M, S, S) and (B, M) of masks, without its padding."""
    boxes, scores, labels, counts, *further = found
    return [
        Detections(*(values[index, :count] for values in (boxes, scores, labels, *further)))
        for index, count in enumerate(counts.tolist())
    ]


def _not_built(num_classes: int) -> nn.Module:
    raise RunError("an exported file cannot be trained: give the run that it was made from")
