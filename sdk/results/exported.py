"""An exported file as a detector.

Shape letters: B images, H x W pixels, M detections of an image at most.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets.transforms import Preprocessing
from ..errors import RunError
from ..models.recipe import Recipe
from ..models.structures import Detections, ImageBatch
from .weights import Trained

if TYPE_CHECKING:
    from os import PathLike

EXPORTED = (".pt2", ".onnx")
"""How the names of exported files end."""
METADATA = "sdk.json"
"""Name under which a file carries what it says of itself, as JSON."""
OUTPUTS = ("boxes", "scores", "labels", "count")

Call = Callable[..., Sequence[Tensor]]


class ExportedDetector(nn.Module):
    """Predicts with an exported file, on the CPU.

    call: the file's function. inside: it takes uint8 images as they are, all of one size.
    """

    def __init__(self, call: Call, *, num_classes: int, inside: bool) -> None:
        super().__init__()
        self.call, self.num_classes, self.inside = call, num_classes, inside
        # It has no weights of its own; this one stands where others are asked on which device they are.
        self.place = nn.Parameter(torch.zeros(0), requires_grad=False)

    def predict(self, images: ImageBatch) -> list[Detections]:
        """Detections of each image; where preprocessing is inside, the pixels are 0..255 and RGB."""
        if not self.inside:
            scales = torch.tensor([images.scale(index) for index in range(len(images))])
            return _detections(self.call(images.pixels.cpu(), torch.tensor(images.sizes).float(), scales))
        found = []
        for index, (height, width) in enumerate(images.sizes):
            pixels = images.pixels[index : index + 1, :, :height, :width].round().to("cpu", torch.uint8)
            one = _detections(self.call(pixels.contiguous()))[0]
            found.append(Detections(one.boxes / one.boxes.new_tensor(images.scale(index) * 2), one.scores, one.labels))
        return found


def load_exported(path: str | PathLike) -> Trained:
    """A detector from a file that ``sdk.export`` wrote.

    Raises:
        RunError: when the file is missing, broken, not written by ``sdk.export``, or its runtime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise RunError(f"{path}: no such file")
    text, call = _onnx(path) if path.suffix == ".onnx" else _program(path)
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
        ExportedDetector(call, num_classes=count, inside=inside),
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
        found: Any = session.run(list(OUTPUTS), {name: one.numpy() for name, one in zip(names, given, strict=True)})
        return [torch.from_numpy(np.asarray(one)) for one in found]

    return session.get_modelmeta().custom_metadata_map.get(METADATA), call


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
    """What a file gives, (B, M, 4), (B, M), (B, M) and (B,), without its padding."""
    boxes, scores, labels, counts = found
    return [
        Detections(boxes[index, :count], scores[index, :count], labels[index, :count])
        for index, count in enumerate(counts.tolist())
    ]


def _not_built(num_classes: int) -> nn.Module:
    raise RunError("an exported file cannot be trained: give the run that it was made from")
