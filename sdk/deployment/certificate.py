"""How far an exported file's results differ from those of the detector that it was made from.

Shape letters: N detections of an image by the detector, M by the file.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..datasets.base import DetectionDataset
from ..errors import RunError, SdkError
from ..inference.running import default_workers, detect, ready, single_device
from ..inference.scoring import collect
from ..models.structures import Detections
from ..models.tta import TTA
from ..reports.page import Page, Section, write_page
from ..results.files import write_json
from ..results.manifest import hardware, versions
from ..results.weights import Trained

PACKAGES = ("torch", "torchvision", "numpy", "onnx", "onnxscript", "onnxruntime", "openvino", "opencv-python-headless")
TIMED = 10
"""Images on which the time is taken, after two that are not counted."""
PAIRED = 8
"""Images that are also looked at in a batch of two."""
MANY = 100
"""Images from which on starting processes that read them is worth while."""
FAR = 1e6
"""Pixels that nothing lies apart."""


@dataclass(frozen=True)
class Limits:
    """What counts as the same. A detection is equal where its box differs by at most ``box`` pixels and its score by at
    most ``score``; at least ``share`` of them have to be. accuracy: by which the main figure may differ."""

    box: float
    score: float
    share: float
    accuracy: float


LIMITS = {
    "float32": Limits(box=0.05, score=1e-3, share=0.999, accuracy=1e-4),
    "float16": Limits(box=1.0, score=0.02, share=0.9, accuracy=0.005),
    # Single detections change; what counts is what that costs.
    "int8": Limits(box=2.0, score=0.05, share=0.0, accuracy=0.02),
}
"""By the precision that a file computes in."""


@dataclass(frozen=True)
class Agreement:
    """Detections of one image, or of many, against those of the detector.

    detections: the larger number of both sides, image by image. equal: how many are, by ``Limits``. unmatched: how many
    have none of their class on the other side. box, score: differences of the others, the greatest and the median, in
    pixels. iou: the least and the median overlap.
    """

    detections: int
    equal: int
    unmatched: int
    box: tuple[float, float]
    score: tuple[float, float]
    iou: tuple[float, float]

    @property
    def share(self) -> float:
        """Share of equal detections; 1 where neither side found any."""
        return self.equal / self.detections if self.detections else 1.0


@dataclass(frozen=True)
class Check:
    """One thing that a file has to show. found, limit: in words."""

    name: str
    found: str
    limit: str
    passed: bool


@dataclass(frozen=True)
class Measured:
    """What a detector finds in a dataset. figure: the main one, none where the protocol gives none. found: detections
    by image id. milliseconds: for an image, the median, without reading it."""

    protocol: str
    name: str
    figure: float | None
    found: Mapping[Any, Detections]
    milliseconds: float | None


@dataclass(frozen=True)
class Certificate:
    """How an exported file compares with its detector on a dataset; ``passed`` says whether it is within the limits."""

    file: dict[str, Any]
    reference: dict[str, Any]
    data: dict[str, Any]
    agreement: Agreement
    in_batches: Agreement | None
    accuracy: dict[str, Any]
    milliseconds: dict[str, float | None]
    checks: tuple[Check, ...]
    versions: dict[str, str]
    hardware: dict[str, Any]
    detections: tuple[dict[str, Any], ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        rows = [f"{'ok' if c.passed else 'FAILED':<8}{c.name}: {c.found} (expected {c.limit})" for c in self.checks]
        return "\n".join((f"{self.file['name']}: {'passed' if self.passed else 'FAILED'}", *rows))

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; ``detections``, those of the detector that were compared, come last."""
        return {"passed": self.passed, **asdict(replace(self, detections=())), "detections": list(self.detections)}


def certificate_file(path: Path) -> Path:
    """Where the certificate of an exported file lies; its page has the same name with ``.html``."""
    return path.with_name(f"{path.name}.certificate.json")


def write_certificate(made: Certificate, path: Path) -> Path:
    """Writes a certificate and its page beside the exported file."""
    target = certificate_file(path)
    write_json(target, made.to_dict())
    write_page(page_of(made), target.with_suffix(".html"))
    return target


def read_certificate(path: Path) -> dict[str, Any] | None:
    """The certificate beside an exported file, or none. Raises RunError where it cannot be read."""
    source = certificate_file(path)
    if not source.is_file():
        return None
    try:
        told = json.loads(source.read_text())
    except ValueError as error:
        raise RunError(f"{source}: not valid JSON: {error}") from error
    missing = [name for name in ("file", "reference", "data", "accuracy", "detections") if name not in told]
    if missing:
        raise RunError(f"{source}: not a certificate that sdk.export wrote: misses {', '.join(missing)}")
    return told


def certify(
    path: Path,
    file: Trained,
    dataset: DetectionDataset,
    reference: Trained | Mapping[str, Any],
    images: int,
) -> Certificate:
    """Compares an exported file with its detector, or with what an earlier certificate says of it.

    images: so many, spread over the dataset, are compared detection by detection; the protocol scores all.

    Raises:
        SdkError: when the certificate is of other data.
    """
    precision = getattr(file.model, "precision", "float32")
    limits = LIMITS[precision]
    if isinstance(reference, Trained):
        compared = spread(dataset, images)
        theirs, ours = (measured(one, dataset, compared) for one in (file, reference))
        about = {"source": reference.source, "model": reference.recipe.name, "sha256": weights_hash(reference.model)}
        checks: list[Check] = []
    else:
        require_same_data(reference, dataset)
        compared = [one["image_id"] for one in reference["detections"]]
        theirs = measured(file, dataset, compared)
        ours = as_measured(reference, theirs)
        about = dict(reference["reference"])
        checks = [same_file(path, reference)]
    each = [agreement(ours.found[image_id], theirs.found[image_id], limits) for image_id in compared]
    whole = joined(each)
    paired = in_batches(file, dataset, limits)
    checks += [share_check("detections equal to the detector's", whole, limits)]
    if paired is not None:
        checks += [share_check("in batches of two as in batches of one", paired, limits)]
    checks += [accuracy_check(ours, theirs, limits)]
    return Certificate(
        file={
            "name": path.name,
            "sha256": file_hash(path),
            "bytes": sum(part.stat().st_size for part in parts_of(path)),
            "precision": precision,
        },
        reference=about,
        data={
            "type": type(dataset).__name__,
            "fingerprint": dataset.fingerprint,
            "images": len(dataset),
            "compared": len(compared),
        },
        agreement=whole,
        in_batches=paired,
        accuracy={"protocol": ours.protocol, "figure": ours.name, "detector": ours.figure, "file": theirs.figure},
        milliseconds={"detector": ours.milliseconds, "file": theirs.milliseconds},
        checks=tuple(checks),
        versions=versions(PACKAGES),
        hardware={**hardware(), "threads": torch.get_num_threads()},
        detections=tuple(as_plain(image_id, ours.found[image_id]) for image_id in compared),
    )


def spread(dataset: DetectionDataset, count: int) -> list[int | str]:
    """Ids of at most so many images, spread over the dataset."""
    places = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int))
    return [plain_id(dataset.info(int(place)).image_id) for place in places]


def plain_id(image_id: Any) -> int | str:
    """An image's id as JSON holds it."""
    return image_id if isinstance(image_id, (int, str)) else str(image_id)


def measured(trained: Trained, dataset: DetectionDataset, compared: Sequence[Any]) -> Measured:
    """Scores a detector in one view, as it is on the CPU, and keeps what it finds in some images."""
    fabric, view, wanted = single_device("cpu"), TTA(), set(compared)
    found: dict[Any, Detections] = {}

    def keep(image_ids: Sequence[Any], detections: list[Detections]) -> None:
        pairs = zip(map(plain_id, image_ids), detections, strict=True)
        found.update({image_id: own for image_id, own in pairs if image_id in wanted})

    trained.model.to(fabric.device)
    workers = default_workers() if len(dataset) >= MANY else 0
    evaluator = collect(dataset, trained.model, trained.recipe, 1, workers, fabric, keep=keep, tta=view)
    report = evaluator.compute()
    return Measured(report.protocol, report.main, report[report.main], found, milliseconds(trained, dataset))


def milliseconds(trained: Trained, dataset: DetectionDataset) -> float:
    """Time of an image on this machine, the median over some; resizing counts, reading the file does not."""
    used = replace(trained, model=ready(trained.model))
    taken = []
    for index in range(TIMED + 2):
        image = dataset[index % len(dataset)].image
        start = time.perf_counter()
        detect(used, [image], TTA())
        taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken[2:])


def in_batches(file: Trained, dataset: DetectionDataset, limits: Limits) -> Agreement | None:
    """Whether images are found alike with another beside them; none where the file takes one image alone."""
    if getattr(file.model, "one_image", False):
        return None
    each = []
    for index in range(min(PAIRED, len(dataset))):
        image = dataset[index].image
        beside = np.ascontiguousarray(image[:, ::-1])
        for alone, paired in zip((image, beside), detect(file, [image, beside], TTA()), strict=True):
            each.append(agreement(detect(file, [alone], TTA())[0], paired, limits))
    return joined(each)


def agreement(ours: Detections, theirs: Detections, limits: Limits) -> Agreement:
    """Pairs detections of the same class so that their boxes differ least, and counts the equal ones."""
    apart = torch.cdist(ours.boxes.double(), theirs.boxes.double(), p=float("inf"))
    scores = (ours.scores[:, None] - theirs.scores).abs().double()
    same = ours.labels[:, None] == theirs.labels
    row, column = linear_sum_assignment(torch.where(same, apart + scores, FAR).numpy())
    pairs = same[row, column]
    row, column = torch.from_numpy(row)[pairs], torch.from_numpy(column)[pairs]
    boxes, values = apart[row, column], scores[row, column]
    overlaps = paired_ious(ours.boxes[row], theirs.boxes[column])
    return Agreement(
        detections=max(len(ours), len(theirs)),
        equal=int(((boxes <= limits.box) & (values <= limits.score)).sum()),
        unmatched=max(len(ours), len(theirs)) - len(row),
        box=_greatest_and_median(boxes),
        score=_greatest_and_median(values),
        iou=(float(overlaps.amin()), float(overlaps.median())) if len(row) else (1.0, 1.0),
    )


def paired_ious(first: Tensor, second: Tensor) -> Tensor:
    """(N,) overlaps of (N, 4) boxes with (N, 4) others, pair by pair; 1 of equal boxes without area."""
    low, high = torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])
    common = (high - low).clamp(min=0).prod(dim=1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(dim=1) for boxes in (first, second)]
    union = areas[0] + areas[1] - common
    return torch.where(union > 0, common / union, 1.0)


def joined(each: Sequence[Agreement]) -> Agreement:
    """That of many images; medians are those of the images' medians."""

    def both(name: str, worst: Any) -> tuple[float, float]:
        values = [getattr(one, name) for one in each if one.detections > one.unmatched]
        return (worst(v[0] for v in values), statistics.median(v[1] for v in values)) if values else (0.0, 0.0)

    total = {name: sum(getattr(one, name) for one in each) for name in ("detections", "equal", "unmatched")}
    return Agreement(**total, box=both("box", max), score=both("score", max), iou=both("iou", min))


def share_check(name: str, found: Agreement, limits: Limits) -> Check:
    told = f"{found.share:.2%} of {found.detections} within {limits.box} px and {limits.score} of score"
    return Check(name, told, f"at least {limits.share:.2%}", found.share >= limits.share)


def accuracy_check(ours: Measured, theirs: Measured, limits: Limits) -> Check:
    both = ours.figure, theirs.figure
    if both[0] is None or both[1] is None:
        return Check(ours.name, "not defined on this data", "the same of both", both[0] is both[1])
    told = f"{both[1]:.5f} of the file, {both[0]:.5f} of the detector"
    return Check(
        ours.name, told, f"a difference of at most {limits.accuracy}", abs(both[1] - both[0]) <= limits.accuracy
    )


def same_file(path: Path, kept: Mapping[str, Any]) -> Check:
    found, expected = file_hash(path), kept["file"]["sha256"]
    return Check("the file that was certified", f"SHA-256 {found[:16]}", expected[:16], found == expected)


def require_same_data(kept: Mapping[str, Any], dataset: DetectionDataset) -> None:
    if kept["data"]["fingerprint"] != dataset.fingerprint:
        raise SdkError(
            f"the certificate is of other data (fingerprint {kept['data']['fingerprint'][:16]}, "
            f"these are {dataset.fingerprint[:16]}); give the detector too, to compare with it: model="
        )


def as_measured(kept: Mapping[str, Any], theirs: Measured) -> Measured:
    """What a certificate says of the detector; only what was found in the images that it compares."""
    if kept["accuracy"]["protocol"] != theirs.protocol:
        raise SdkError(f"the certificate is of {kept['accuracy']['protocol']}, this is {theirs.protocol}")
    found = {
        one["image_id"]: Detections(
            torch.tensor(one["boxes"], dtype=torch.float32).reshape(-1, 4),
            torch.tensor(one["scores"], dtype=torch.float32),
            torch.tensor(one["labels"], dtype=torch.int64),
        )
        for one in kept["detections"]
    }
    return Measured(theirs.protocol, theirs.name, kept["accuracy"]["detector"], found, kept["milliseconds"]["detector"])


def as_plain(image_id: int | str, found: Detections) -> dict[str, Any]:
    """Detections as JSON holds them: boxes to a thousandth of a pixel, scores to a millionth."""
    return {
        "image_id": image_id,
        "boxes": [[round(value, 3) for value in box] for box in found.boxes.tolist()],
        "scores": [round(value, 6) for value in found.scores.tolist()],
        "labels": found.labels.tolist(),
    }


def file_hash(path: Path) -> str:
    """SHA-256 of an exported file, in hexadecimal digits; of OpenVINO's network with its weights."""
    total = hashlib.sha256()
    for part in parts_of(path):
        total.update(part.read_bytes())
    return total.hexdigest()


def parts_of(path: Path) -> list[Path]:
    """The files that an exported file consists of."""
    weights = path.with_suffix(".bin")
    return [path, weights] if path.suffix == ".xml" and weights.is_file() else [path]


def weights_hash(model: torch.nn.Module) -> str:
    """SHA-256 of a detector's weights: names, shapes and values."""
    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def page_of(made: Certificate) -> Page:
    """The certificate for people."""

    def rows(told: Mapping[str, Any]) -> list[tuple[str, str]]:
        return [("", ""), *((name.replace("_", " "), _in_words(value)) for name, value in told.items())]

    agreed = made.agreement
    sections = [
        Section(
            "Checks",
            [
                ("check", "found", "expected", "passed"),
                *((c.name, c.found, c.limit, "yes" if c.passed else "NO") for c in made.checks),
            ],
        ),
        Section(
            f"Detections in {made.data['compared']} images",
            [
                ("", "worst", "median"),
                ("box, pixels", f"{agreed.box[0]:.4f}", f"{agreed.box[1]:.4f}"),
                ("score", f"{agreed.score[0]:.6f}", f"{agreed.score[1]:.6f}"),
                ("IoU", f"{agreed.iou[0]:.5f}", f"{agreed.iou[1]:.5f}"),
                ("without a partner", str(agreed.unmatched), ""),
            ],
        ),
        Section("Accuracy", rows(made.accuracy)),
        Section("Milliseconds for an image", rows(made.milliseconds)),
        Section("File", rows(made.file)),
        Section("Detector", rows(made.reference)),
        Section("Data", rows(made.data)),
        Section("Versions", rows(made.versions)),
        Section("Machine", rows(made.hardware)),
    ]
    verdict = "passed" if made.passed else "FAILED"
    return Page(f"Certificate of {made.file['name']}: {verdict}", [made.accuracy["protocol"]], sections)


def _in_words(value: Any) -> str:
    return "none" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def _greatest_and_median(values: Tensor) -> tuple[float, float]:
    return (float(values.amax()), float(values.median())) if len(values) else (0.0, 0.0)
