"""The WIDER FACE protocol: average precision over the easy, medium and hard sets of faces.

Source: Yang et al., "WIDER FACE: A Face Detection Benchmark", and the procedure of its evaluation tools: scores are
stretched to 0..1 over the whole set; IoU counts the last pixel of a box in (+1) and must reach 0.5; a detection looks
at the face of highest IoU, found before or not; one on a face outside the set at hand does not count; precision and
recall are read at 1000 thresholds. Images without any face are left out, with all detections on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..datasets.base import DetectionDataset
from ..datasets.errors import DatasetError
from .analysis import BACKGROUND, Compared
from .base import Counts, Report, Value
from .collecting import CollectingEvaluator
from .ground_truth import ground_truth_of
from .matching import Found, Matches, Pairs, best_pairs, box_pairs, rank_in_groups
from .voc import average_precision
from .weighting import Figure, Weighable, weighable_matches

if TYPE_CHECKING:
    from ..models.structures import Detections

SETS = ("easy", "medium", "hard")
IOU = 0.5
STEPS = 1000


@dataclass(frozen=True)
class WiderFace:
    """The WIDER FACE protocol.

    ground_truth: folder of its ``.mat`` files, by default the one that the dataset knows.
    """

    ground_truth: str | Path | None = None

    def __str__(self) -> str:
        return "WIDER FACE (IoU 0.5 with +1 pixel, scores stretched over the set, 1000 thresholds)"

    def evaluator(self, dataset: DetectionDataset, masks: bool = False) -> WiderFaceEvaluator:
        """Scores the boxes of a dataset."""
        return WiderFaceEvaluator(dataset, self.ground_truth)


class _Faces:
    """The faces of the official ``.mat`` files for the images of a dataset, G rows.

    offsets: (M + 1,) rows by image. boxes: (G, 4) x, y, width, height. counts: set to (G,) bool. total: images that the
    files have.
    """

    def __init__(self, folder: Path, image_ids: Sequence[Any]) -> None:
        files = {name: _read(folder / f"wider_{name}_val.mat") for name in SETS}
        boxes: dict[str, np.ndarray] = {}
        kept: dict[str, dict[str, np.ndarray]] = {name: {} for name in SETS}
        for name, content in files.items():
            for event, images, faces, chosen in zip(
                content["event_list"], content["file_list"], content["face_bbx_list"], content["gt_list"]
            ):
                for image, rows, choice in zip(images[0], faces[0], chosen[0]):
                    image_id = f"{event[0][0]}/{image[0][0]}"
                    boxes[image_id] = rows[0].astype(np.float64).reshape(-1, 4)
                    counts = np.zeros(len(rows[0]), bool)
                    counts[choice[0].astype(np.int64).reshape(-1) - 1] = True
                    kept[name][image_id] = counts
        missing = [image_id for image_id in image_ids if str(image_id) not in boxes]
        if missing:
            raise DatasetError(
                f"{len(missing)} images of the dataset are not in the ground truth",
                file=folder,
                found=missing[0],
                expected=f"ids such as {next(iter(boxes))!r}",
            )
        own = [boxes[str(image_id)] for image_id in image_ids]
        self.total = len(boxes)
        self.offsets = np.concatenate([[0], np.cumsum([len(rows) for rows in own], dtype=np.int64)])
        self.boxes = np.concatenate([np.zeros((0, 4)), *own])
        self.counts = {
            name: np.concatenate([np.zeros(0, bool), *(kept[name][str(image_id)] for image_id in image_ids)])
            for name in SETS
        }


def _read(file: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    if not file.is_file():
        raise DatasetError("the ground truth of a set is missing", file=file, expected="a file of the evaluation tools")
    try:
        content = loadmat(file)
    except Exception as error:  # scipy raises many types for a damaged file.
        raise DatasetError(f"not a MATLAB file ({error})", file=file) from None
    for field in ("event_list", "file_list", "face_bbx_list", "gt_list"):
        if field not in content:
            raise DatasetError("field is missing", file=file, field=field)
    return content


class WiderFaceEvaluator(CollectingEvaluator):
    """Easy, medium and hard AP.

    dataset: whose image ids are ``<event>/<name>``. ground_truth: folder with ``wider_easy_val.mat``,
    ``wider_medium_val.mat`` and ``wider_hard_val.mat``; by default the one that the dataset knows.

    Raises DatasetError where the files are missing or damaged, or lack an image of the dataset.
    """

    def __init__(self, dataset: DetectionDataset, ground_truth: str | Path | None = None) -> None:
        super().__init__(ground_truth_of(dataset))
        self.protocol = WiderFace(ground_truth)
        self.classes = tuple(self.truth.classes)
        folder = ground_truth if ground_truth is not None else getattr(dataset, "ground_truth", None)
        if folder is None:
            raise DatasetError("the WIDER FACE protocol needs its three sets", expected="ground_truth=<folder>")
        self._faces = _Faces(Path(folder), self.truth.image_ids)

    def read_results(self, folder: str | Path) -> Iterator[tuple[Any, Detections]]:
        """Official results, image by image: ``<event>/<name>.txt`` with the image's name, a count, and lines of x, y,
        width, height, score. An image without a file has no detections.

        Raises DatasetError naming file and line.
        """
        import torch

        from ..models.structures import Detections

        for image_id in self.truth.image_ids:
            file = Path(folder) / f"{image_id}.txt"
            lines = file.read_text().splitlines()[2:] if file.is_file() else []
            rows = []
            for number, line in enumerate(lines, 3):
                try:
                    x, y, width, height, score = map(float, line.split())
                except ValueError:
                    raise DatasetError(
                        "not a face", file=file, where=f"line {number}", found=line, expected="x y width height score"
                    ) from None
                rows.append((x, y, x + width, y + height, score))
            table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)
            labels = torch.zeros(len(table), dtype=torch.int64)
            yield image_id, Detections(boxes=table[:, :4], scores=table[:, 4], labels=labels)

    def _looked_at(self) -> tuple[Found, np.ndarray, np.ndarray]:
        """Detections, the row of the face that each looks at (-1 for none), and the IoU."""
        found = self._collected.found("bbox")
        return found, *best_pairs(self._pairs(found, IOU), len(found))

    def _pairs(self, found: Found, minimum: float) -> Pairs:
        faces, boxes = self._faces, self._collected["box"]
        never = np.zeros(len(faces.boxes), bool)
        return box_pairs(found.images, boxes, faces.offsets, faces.boxes, never, minimum=minimum, pixel=1.0)

    def matches(self, kind: str = "bbox", iou: float = IOU, subset: str = "hard") -> Matches:
        """Who found whom in one of the three sets; truth rows count the faces of the ``.mat`` files."""
        if not np.isclose(iou, IOU):
            raise ValueError(f"IoU {iou}: the protocol matches at {IOU} only")
        return self._matches(*self._looked_at(), subset)

    def compared(self, kind: str = "bbox", iou: float = IOU) -> Compared:
        """The table of matched detections with the faces of the hard set, at the protocol's IoU threshold."""
        matches, faces = self.matches(iou=iou), self._faces
        found = matches.found
        return Compared(
            matches,
            self._pairs(found, BACKGROUND),
            truth_labels=np.zeros(len(faces.boxes), np.int64),
            truth_images=np.repeat(np.arange(len(faces.offsets) - 1), np.diff(faces.offsets)),
            truth_boxes=faces.boxes,
            truth_areas=faces.boxes[:, 2] * faces.boxes[:, 3],
            image_sizes=self.truth.sizes,
            image_rank=self.truth.image_rank,
            iou=iou,
        )

    def weighable(self, kind: str = "bbox") -> Weighable:
        """The figures as functions of the images' weights; scores are stretched over the whole set under all."""
        looked_at, faces = self._looked_at(), self._faces
        scores = looked_at[0].scores
        low, high = (scores.min(), scores.max()) if len(scores) else (0.0, 0.0)
        thresholds = 1 - np.arange(1, STEPS + 1) / STEPS

        def step(scores: np.ndarray) -> np.ndarray:
            stretched = (scores - low) / (high - low) if high > low else np.ones(len(scores))
            return np.searchsorted(-thresholds, -stretched, side="left")

        return weighable_matches(
            lambda name: self._matches(*looked_at, name),  # type: ignore[arg-type]
            {f"AP_{name}": Figure((name,), by_class=False) for name in SETS},
            np.repeat(np.arange(len(faces.offsets) - 1), np.diff(faces.offsets)),
            np.zeros(len(faces.boxes), np.int64),
            np.argsort(-scores, kind="stable"),
            "area",
            classes=1,
            images=len(self.truth.image_ids),
            places=step,
        )

    def _matches(self, found: Found, best: np.ndarray, overlap: np.ndarray, subset: str) -> Matches:
        counts = self._faces.counts[subset]
        hit = best >= 0
        excused = np.diff(self._faces.offsets)[found.images] == 0
        excused[hit] = ~counts[best[hit]]
        order = np.lexsort((found.index, -found.scores, found.images))
        on_face = order[(hit & ~excused)[order]]
        by_face = on_face[np.argsort(best[on_face], kind="stable")]
        first = np.zeros(len(found), bool)
        first[by_face] = rank_in_groups(np.arange(len(by_face)), best[by_face]) == 0
        detection = np.full(len(counts), -1, np.int64)
        detection[best[first]] = np.flatnonzero(first)
        truth = np.where(first, best, -1)
        return Matches(found, truth, np.where(first, overlap, 0.0), excused, detection, ~counts)

    def compute(self) -> Report:
        """The three figures, with their curves."""
        found, best, overlap = self._looked_at()
        metrics: dict[str, Value] = {}
        curves: dict[str, dict[str, Any]] = {}
        notes = self._collected.notes()
        low, high = (found.scores.min(), found.scores.max()) if len(found) else (0.0, 0.0)
        stretched = (found.scores - low) / (high - low) if high > low else np.ones(len(found))
        thresholds = 1 - np.arange(1, STEPS + 1) / STEPS
        for name in SETS:
            faces = int(self._faces.counts[name].sum())
            if not faces:
                metrics[f"bbox/AP_{name}"] = Value(None, f"no face of the {name} set")
                continue
            matches = self._matches(found, best, overlap, name)
            true = _reaching(stretched[matches.true_positive], thresholds)
            counted = _reaching(stretched[~matches.ignored], thresholds)
            recall, precision = true / faces, true / np.maximum(counted, 1)
            metrics[f"bbox/AP_{name}"] = Value(average_precision(recall, precision, "area"))
            curves[name] = {
                "bbox/recall": recall,
                "bbox/precision": precision,
                "bbox/thresholds": low + thresholds * (high - low),
            }
            if len(found) and not true.any():
                notes.append(f"{name}: no prediction matched a face at IoU {IOU}")
        if not len(found):
            notes.append("there are no detections")
        if len(self.truth.image_ids) < self._faces.total:
            notes.append(f"scored on {len(self.truth.image_ids)} of the {self._faces.total} images of the ground truth")
        ignored = int((~self._faces.counts["hard"]).sum())
        return Report(
            protocol=str(self.protocol),
            metrics=metrics,
            counts=Counts(len(self.truth.image_ids), len(self._faces.boxes), len(found), ignored),
            curves=curves,
            notes=tuple(notes),
            evaluator=self,
        )


def _reaching(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many scores reach each threshold."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")
