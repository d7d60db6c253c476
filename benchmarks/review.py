"""How well planted label faults are found: `OMP_NUM_THREADS=1 python -m benchmarks.review --data ../shared`.

5 % of the objects are spoilt by seed, in equal parts: another class, a shifted box, a shrunk one, dropped, invented,
duplicated. The same predictions are then given to ``sdk``'s label faults, to cleanlab's scores of object detection and,
with ``--fiftyone``, to FiftyOne Brain's mistakenness. Told are the average precision of each ranking and the recall
among as many suggestions as there are faults, as means over the seeds; what a tool has no score for is left open.

Predictions: what MMDetection's models say of the blood cells, a real detector's 452 detections on 100 images of VOC,
and two detectors that are simulated from the ground truth of both (said so in their names).
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdk import datasets
from sdk.datasets.amending import Amendments, Change
from sdk.evaluators.label_faults import KINDS, Objects, label_faults, overlaps
from sdk.insight.review import review_of
from sdk.models.structures import Detections

PLANTED = {
    "wrong class": "class", "shifted": "box", "shrunk": "box", "dropped": "missing", "invented": "spurious",
    "duplicated": "duplicate",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A dataset with detections, one for each image."""

    name: str
    dataset: datasets.DetectionDataset
    found: list[Detections]


@dataclass(frozen=True, eq=False)
class Planted:
    """A fault: its kind, the image, the annotations that may be named for it (none for a dropped one), and the box."""

    kind: str
    image: int
    annotations: frozenset[str]
    box: np.ndarray


def plant(dataset: datasets.DetectionDataset, seed: int, share: float = 0.05) -> tuple[Amendments, list[Planted]]:
    """Changes that spoil a share of the objects, and what they are."""
    rng = np.random.default_rng(seed)
    columns, classes = dataset.annotations, list(dataset.classes)
    image_of = columns.image_of()
    usable = np.flatnonzero(columns.usable & ~columns.ignore)
    chosen = rng.permutation(usable)[: round(share * len(usable))]
    present = np.unique(columns.labels[usable])
    changes, faults = [], []
    for place, row in enumerate(chosen):
        what = list(PLANTED)[place % len(PLANTED)]
        image, box = int(image_of[row]), columns.boxes[row].copy()
        h, w = columns.image_sizes[image]
        image_id, annotation_id = columns.image_ids[image].item(), columns.annotation_ids[row].item()
        sides, names = np.tile(box[2:] - box[:2], 2), frozenset([str(annotation_id)])
        if what == "wrong class":
            label = rng.choice(present[present != columns.labels[row]])
            changes.append(Change("relabel", image_id, annotation_id, classes[label]))
        elif what in ("shifted", "shrunk"):
            if what == "shifted":
                angle = rng.uniform(0, 2 * np.pi)
                moved = box + sides * rng.uniform(0.25, 0.45) * np.tile([np.cos(angle), np.sin(angle)], 2)
            else:
                smaller, place_in = rng.uniform(0.55, 0.75, 2), rng.uniform(0, 1, 2)
                start = box[:2] + sides[:2] * (1 - smaller) * place_in
                moved = np.concatenate([start, start + sides[:2] * smaller])
            moved = np.clip(moved, 0, [w, h, w, h])
            if (moved[2:] - moved[:2]).min() < 2:
                continue
            changes.append(Change("move", image_id, annotation_id, box=tuple(moved.tolist())))
        elif what == "dropped":
            changes.append(Change("remove", image_id, annotation_id))
            names = frozenset()
        else:
            new_id = f"planted {place}"
            if what == "invented":
                start = rng.uniform(0, 1, 2) * np.maximum([w, h] - sides[:2], 0)
                box = np.concatenate([start, start + sides[:2]])
                label = columns.labels[rng.choice(usable)]
                names = frozenset([new_id])
            else:
                box = np.clip(box + rng.normal(0, 0.03, 4) * sides, 0, [w, h, w, h])
                label = columns.labels[row]
                names = names | {new_id}
            changes.append(Change("add", image_id, new_id, classes[label], box=tuple(box.tolist())))
        faults.append(Planted(PLANTED[what], image, names, box))
    return Amendments(dataset.fingerprint, tuple(changes)), faults


@dataclass(frozen=True)
class Ranking:
    """Suggestions of one kind: image, annotation id or none, box, and how sure; in any order."""

    images: np.ndarray
    annotations: list[str | None]
    boxes: np.ndarray
    scores: np.ndarray


def measured(ranking: Ranking, faults: list[Planted]) -> tuple[float, float]:
    """Average precision, and recall among as many suggestions as faults; a fault is found once."""
    open_faults, right = list(faults), []
    order = np.argsort(-ranking.scores, kind="stable")
    for i in order:
        hit = None
        for fault in open_faults:
            if fault.image != ranking.images[i]:
                continue
            named = ranking.annotations[i] in fault.annotations
            if named or (not fault.annotations and overlaps(ranking.boxes[i][None], fault.box[None])[0] >= 0.5):
                hit = fault
                break
        right.append(hit is not None)
        if hit is not None:
            open_faults.remove(hit)
    right = np.array(right, float)
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return float((precision * right).sum() / len(faults)), float(right[: len(faults)].sum() / len(faults))


def objects(dataset: datasets.DetectionDataset, found: list[Detections]) -> tuple[Objects, Objects]:
    """Annotations and detections as the library's own reading takes them."""
    columns = dataset.annotations
    truth = Objects(
        columns.image_of(), columns.boxes, columns.labels, np.ones(len(columns)), columns.ignore | ~columns.usable
    )
    images = np.repeat(np.arange(len(found)), [len(one.scores) for one in found])
    boxes, scores, labels = (
        np.concatenate([getattr(one, name).numpy() for one in found]) for name in ("boxes", "scores", "labels")
    )
    return truth, Objects(
        images, boxes.astype(np.float64), labels, scores.astype(np.float64), np.zeros(len(images), bool)
    )


def by_sdk(dataset: datasets.DetectionDataset, found: list[Detections]) -> dict[str, Ranking]:
    """Rankings by ``label_faults``."""
    truth, detections = objects(dataset, found)
    faults = label_faults(truth, detections, len(dataset.classes))
    ids = [str(i) for i in dataset.annotations.annotation_ids.tolist()]
    rankings = {}
    for kind in KINDS:
        if kind == "missing":
            rows = np.flatnonzero(faults.missing > 0)
            rankings[kind] = Ranking(
                detections.images[rows], [None] * len(rows), detections.boxes[rows], faults.missing[rows]
            )
        else:
            rows = faults.of_kind(kind)
            probability = faults.probability[KINDS.index(kind), rows]
            rankings[kind] = Ranking(truth.images[rows], [ids[r] for r in rows], truth.boxes[rows], probability)
    return rankings


def by_cleanlab(dataset: datasets.DetectionDataset, found: list[Detections]) -> dict[str, Ranking]:
    """Rankings by cleanlab's three scores of object detection, low ones first.

    Its default looks at detections of a score of 0.95 and more alone, which some of these detectors never give; 0.5 is
    better for it on all of them.
    """
    from cleanlab.object_detection import rank

    truth, _ = objects(dataset, found)
    ids = np.array([str(i) for i in dataset.annotations.annotation_ids.tolist()])
    starts = dataset.annotations.image_offsets
    labels = [{"bboxes": truth.boxes[a:b], "labels": truth.labels[a:b]} for a, b in pairwise(starts)]
    predictions = []
    for one in found:
        by_class = np.empty(len(dataset.classes), dtype=object)
        rows = np.concatenate([one.boxes.numpy(), one.scores.numpy()[:, None]], 1)
        for k in range(len(dataset.classes)):
            by_class[k] = rows[one.labels.numpy() == k]
        predictions.append(by_class)
    rankings = {}
    more = {"class": {"high_probability_threshold": 0.5}, "box": {}}
    scored = {"class": rank.compute_swap_box_scores, "box": rank.compute_badloc_box_scores}
    for kind, score in scored.items():
        by_image = score(labels=labels, predictions=predictions, **more[kind])
        values = -np.concatenate([np.asarray(v, float) for v in by_image])
        rankings[kind] = Ranking(truth.images, ids.tolist(), truth.boxes, values)
    # Its scores of overlooked objects are by detection, class after class; those without one are nan.
    overlooked = rank.compute_overlooked_box_scores(
        labels=labels, predictions=predictions, high_probability_threshold=0.5
    )
    images, boxes, scores = [], [], []
    for image, (by_class, values) in enumerate(zip(predictions, overlooked, strict=True)):
        all_boxes = np.concatenate(list(by_class))[:, :4]
        keep = ~np.isnan(np.asarray(values, float))
        images += [image] * int(keep.sum())
        boxes.append(all_boxes[keep])
        scores.append(-np.asarray(values, float)[keep])
    rankings["missing"] = Ranking(np.array(images), [None] * len(images), np.concatenate(boxes), np.concatenate(scores))
    return rankings


def by_fiftyone(dataset: datasets.DetectionDataset, found: list[Detections]) -> dict[str, Ranking]:
    """Rankings by FiftyOne Brain's mistakenness; missing objects, which it only flags, go by their score."""
    import fiftyone as fo
    import fiftyone.brain as fob

    fo.config.show_progress_bars = False
    truth, detections = objects(dataset, found)
    ids = [str(i) for i in dataset.annotations.annotation_ids.tolist()]
    sizes = dataset.annotations.image_sizes
    made = fo.Dataset()

    def label(row: int, of: Objects, number: str, **more: float) -> fo.Detection:
        h, w = sizes[of.images[row]]
        x1, y1, x2, y2 = of.boxes[row]
        box = [x1 / w, y1 / h, (x2 - x1) / w, (y2 - y1) / h]
        return fo.Detection(label=str(dataset.classes[of.labels[row]]), bounding_box=box, number=number, **more)

    samples = []
    for image in range(len(dataset)):
        there = [label(r, truth, ids[r]) for r in np.flatnonzero(truth.images == image)]
        said = [
            label(r, detections, str(r), confidence=float(detections.scores[r]))
            for r in np.flatnonzero(detections.images == image)
        ]
        fields = {"truth": fo.Detections(detections=there), "found": fo.Detections(detections=said)}
        h, w = sizes[image]
        about = fo.ImageMetadata(width=int(w), height=int(h))
        samples.append(fo.Sample(filepath=f"/{image}.jpg", metadata=about, image=image, **fields))
    made.add_samples(samples)
    fob.compute_mistakenness(made, "found", label_field="truth")
    rows = {number: row for row, number in enumerate(ids)}
    collected: dict[str, list[tuple[int, str | None, np.ndarray, float]]] = {
        k: [] for k in ("class", "box", "spurious")
    }
    collected["missing"] = []
    for sample in made:
        for one in sample["truth"].detections:
            entry = (sample["image"], one["number"], truth.boxes[rows[one["number"]]])
            for kind, field in (
                ("class", "mistakenness"),
                ("box", "mistakenness_loc"),
                ("spurious", "possible_spurious"),
            ):
                if one.has_attribute(field) if hasattr(one, "has_attribute") else field in one.field_names:
                    value = one[field]
                    if value is not None:
                        collected[kind].append((*entry, float(value)))
        for one in sample["found"].detections:
            if "possible_missing" in one.field_names and one["possible_missing"]:
                row = int(one["number"])
                collected["missing"].append((sample["image"], None, detections.boxes[row], float(one.confidence)))
    made.delete()
    return {
        kind: Ranking(
            np.array([e[0] for e in entries], int), [e[1] for e in entries],
            np.array([e[2] for e in entries]).reshape(-1, 4), np.array([e[3] for e in entries]),
        )
        for kind, entries in collected.items()
    }  # fmt: skip


def of_results(dataset: datasets.DetectionDataset, results: Path, places: dict[int, str]) -> list[Detections]:
    """Detections of a COCO results file, whose image ids have these names in the dataset."""
    rows: dict[str, list[dict]] = {}
    for entry in json.loads(results.read_text()):
        rows.setdefault(places[entry["image_id"]], []).append(entry)
    found = []
    for image_id in dataset.annotations.image_ids.tolist():
        own = sorted(rows.get(image_id, []), key=lambda entry: -entry["score"])
        boxes = torch.tensor([entry["bbox"] for entry in own]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        scores = torch.tensor([entry["score"] for entry in own])
        found.append(Detections(boxes, scores, torch.tensor([e["category_id"] - 1 for e in own], dtype=torch.long)))
    return found


def of_voc(dataset: datasets.DetectionDataset, folder: Path) -> list[Detections]:
    """The detections beside the VOC sample: class, score, x1 y1 x2 y2 counted from 1, ends inclusive."""
    names = (folder / "voc.names").read_text().split()
    found = []
    for image_id in dataset.annotations.image_ids.tolist():
        file = folder / "dets" / "abs_xyx2y2" / f"{image_id}.txt"
        rows = np.array([line.split() for line in file.read_text().splitlines()], float) if file.is_file() else []
        rows = np.reshape(rows, (-1, 6))
        rows = rows[np.argsort(-rows[:, 1], kind="stable")]
        labels = [dataset.classes.index(names[int(k)]) for k in rows[:, 0]]
        boxes = torch.from_numpy(rows[:, 2:] - [1, 1, 0, 0]).float()
        found.append(Detections(boxes, torch.from_numpy(rows[:, 1]).float(), torch.tensor(labels, dtype=torch.long)))
    return found


def simulated(
    dataset: datasets.DetectionDataset, seed: int, recall: float = 0.9, noise: float = 0.06
) -> list[Detections]:
    """Detections made from the true annotations: a share is missed, edges are noisy, some classes are confused, and
    low-scored false ones are everywhere."""
    rng = np.random.default_rng(seed)
    columns, found = dataset.annotations, []
    present = np.unique(columns.labels)
    for image in range(len(dataset)):
        boxes, scores, labels = [], [], []
        h, w = columns.image_sizes[image]
        for row in range(*columns.image_offsets[image : image + 2]):
            box, label = columns.boxes[row], columns.labels[row]
            sides = np.tile(box[2:] - box[:2], 2)
            sure = rng.beta(6, 2) if rng.random() < recall else rng.beta(1.2, 6)
            boxes.append(box + rng.normal(0, noise, 4) * sides * (1.5 - sure))
            scores.append(sure)
            labels.append(label)
            if rng.random() < 0.3:  # A second opinion of another class at the same place.
                boxes.append(box + rng.normal(0, noise, 4) * sides)
                scores.append(min(sure, 1 - sure) * rng.random())
                labels.append(rng.choice(present))
        for _ in range(rng.poisson(6)):
            sides = rng.uniform(0.1, 0.4, 2) * [w, h]
            start = rng.uniform(0, 1, 2) * ([w, h] - sides)
            boxes.append(np.concatenate([start, start + sides]))
            scores.append(rng.beta(1.2, 8))
            labels.append(rng.choice(present))
        order = np.argsort(-np.array(scores), kind="stable")
        boxes = np.clip(np.array(boxes).reshape(-1, 4)[order], 0, [w, h, w, h])
        values = (torch.from_numpy(boxes).float(), torch.tensor(np.array(scores)[order]).float())
        found.append(Detections(*values, torch.tensor(np.array(labels, int)[order])))
    return found


def cases(shared: Path) -> list[Case]:
    """The datasets with their detections."""
    cells = datasets.Voc(shared / "data" / "bccd").test
    about = json.loads((shared / "mmdetection" / "test.json").read_text())
    places = {entry["id"]: Path(entry["file_name"]).stem for entry in about["images"]}
    pictures = datasets.Voc(shared / "data" / "voc_100")
    made = [
        Case(f"bccd, {name}", cells, of_results(cells, shared / "mmdetection" / name / "results.json", places))
        for name in ("retinanet", "faster")
    ]
    made.append(Case("voc_100, real detector", pictures, of_voc(pictures, shared / "data" / "voc_100")))
    made += [Case(f"{n}, simulated", d, simulated(d, 1)) for n, d in (("bccd", cells), ("voc_100", pictures))]
    return made


def fixed(case: Case, seed: int) -> tuple[float, float, float]:
    """The protocol's main figure with the true labels, the spoilt ones, and those that a person has set right who goes
    through five times as many suspects as faults and accepts the suggestions that concern a planted fault."""
    changes, faults = plant(case.dataset, seed)
    spoilt = datasets.amended(case.dataset, changes)
    review = review_of(spoilt, evaluator_of(spoilt, case.found))
    places = {info: image for image, info in enumerate(spoilt.annotations.image_ids.tolist())}
    for suspect in review.suspects[: 5 * len(faults)]:
        at = Ranking(
            np.array([places[suspect.image_id]]),
            [None if suspect.annotation_id is None else str(suspect.annotation_id)],
            np.array([suspect.box]), np.ones(1),
        )  # fmt: skip
        own = [fault for fault in faults if fault.kind == suspect.kind and measured(at, [fault])[1]]
        if own:
            review.accept(suspect)
    mended = datasets.amended(spoilt, review.amendments())
    figures = [evaluator_of(one, case.found).compute() for one in (case.dataset, spoilt, mended)]
    true, before, after = (float(report[report.main] or 0) for report in figures)
    return true, before, after


def evaluator_of(dataset: datasets.DetectionDataset, found: list[Detections]) -> Any:
    """The dataset's own evaluator with the detections."""
    evaluator = dataset.evaluator()
    evaluator.update(dataset.annotations.image_ids.tolist(), found)
    return evaluator


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--fiftyone", action="store_true")
    parser.add_argument("--fixed", action="store_true", help="what fixing the labels does to the score, instead")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    if options.fixed:
        print("| detections | true labels | spoilt | fixed |\n|---|---|---|---|")
        for case in cases(options.data):
            values = np.mean([fixed(case, seed) for seed in seeds], 0)
            print(f"| {case.name} | {' | '.join(f'{value:.4f}' for value in values)} |", flush=True)
        return
    tools: dict[str, Callable] = {"sdk": by_sdk, "cleanlab": by_cleanlab}
    if options.fiftyone:
        tools["FiftyOne"] = by_fiftyone
    print(f"| detections | kind | {' | '.join(f'{tool} AP | {tool} recall' for tool in tools)} |")
    print("|---" * (2 + 2 * len(tools)) + "|")
    for case in cases(options.data):
        figures: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for seed in seeds:
            changes, faults = plant(case.dataset, seed)
            spoilt = datasets.amended(case.dataset, changes)
            for tool, rank in tools.items():
                for kind, ranking in rank(spoilt, case.found).items():
                    own = [fault for fault in faults if fault.kind == kind]
                    if own:
                        figures.setdefault((kind, tool), []).append(measured(ranking, own))
        for kind in KINDS:
            cells = []
            for tool in tools:
                values = figures.get((kind, tool))
                cells += ["", ""] if values is None else [f"{value:.3f}" for value in np.mean(values, 0)]
            print(f"| {case.name} | {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
