"""Average recall of class-agnostic boxes: AR at 100, 300 and 1000 proposals an image (Hosang et al., "What makes for
effective detection proposals?"; the COCO procedure with classes ignored, as published for RPN)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..datasets.base import DetectionDataset
from ..models.structures import Detections, Proposals
from .base import Counts, Report, Value
from .collecting import CollectingEvaluator
from .figures import explain, mean, no_truth
from .ground_truth import ground_truth_of
from .matching import COCO_AREAS, COCO_THRESHOLDS, Matches, Scored, Sought, box_pairs, outside, score

PROTOCOL = "COCO proposals (class-agnostic average recall, IoU 0.50:0.95)"
COUNTS = (100, 300, 1000)


class ProposalEvaluator(CollectingEvaluator):
    """AR@100, AR@300, AR@1000, and by size at 1000.

    dataset: whose objects are to be covered, of whatever class; crowds and other ignored ones count neither way.
    """

    def __init__(self, dataset: DetectionDataset) -> None:
        super().__init__(ground_truth_of(dataset))

    def update(self, image_ids: Sequence[Any], proposals: Sequence[Proposals | Detections]) -> None:
        """Add the proposals of some images, in original pixels; each image once. Labels of detections are ignored.
        Errors: ``Collector.add``."""
        zeros = [torch.zeros(len(p), dtype=torch.int64) for p in proposals]
        found = [Detections(boxes=p.boxes, scores=p.scores, labels=label) for p, label in zip(proposals, zeros)]
        super().update(image_ids, found)

    def matches(self, kind: str = "bbox", iou: float = 0.5) -> Matches:
        """Which proposal covers which object at an IoU threshold of the protocol."""
        matches, order = self._score().matches(iou), self._order
        back = np.argsort(order)
        truth = matches.truth.copy()
        truth[truth >= 0] = order[truth[truth >= 0]]
        return replace(
            matches, truth=truth, detection=matches.detection[back], truth_ignored=matches.truth_ignored[back]
        )

    @property
    def _order(self) -> np.ndarray:
        """(G,) annotation rows image by image and class by class: the official code goes through the classes in turn,
        which settles equal overlaps."""
        categories = np.asarray(self.truth.category_ids)[self.truth.labels]
        return np.lexsort((categories, self.truth.images))

    def _score(self) -> Scored:
        truth, c, order = self.truth, self._collected, self._order
        found = c.found("bbox")
        crowd = truth.crowd[order]
        pairs = box_pairs(
            found.images, c["box"], truth.offsets, truth.boxes[order], crowd, minimum=float(COCO_THRESHOLDS[0])
        )
        return score(
            found,
            Sought(
                truth.images,
                np.zeros(len(order), np.int64),
                outside(truth.areas[order]) | (truth.ignore | truth.crowd)[order],
                crowd,
            ),
            pairs,
            image_rank=truth.image_rank,
            most=COUNTS[-1],
            ignore_unmatched=outside(found.areas),
            thresholds=COCO_THRESHOLDS,
            num_classes=1,
        )

    def compute(self) -> Report:
        """AR at three counts, and by size."""
        scored = self._score()
        present = scored.curves.positives > 0
        figures: dict[str, Value] = {}
        for count in COUNTS:
            figures[f"proposals/AR@{count}"] = mean(scored.recall_at(count)[0], present[0], no_truth())
        for area, size in list(enumerate(COCO_AREAS))[1:]:
            name = f"proposals/AR{size}@{COUNTS[-1]}"
            figures[name] = mean(scored.curves.recall[area], present[area], no_truth(size))
        ignored = self.truth.ignore | self.truth.crowd
        return Report(
            protocol=PROTOCOL,
            metrics=figures,
            counts=Counts(len(self.truth.image_ids), len(self.truth.labels), len(self._collected), int(ignored.sum())),
            notes=tuple(self._collected.notes() + explain(scored, "proposals")),
        )
