"""Datasets built from dictionaries, and the official tools run quietly on the same dictionaries."""

from __future__ import annotations

import contextlib
import copy
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sdk.datasets.base import ImageInfo
from sdk.datasets.index import Annotations, Builder, Ragged
from sdk.datasets.masks import check_rle


@dataclass
class ColumnDataset:
    """The least that an evaluator needs of a dataset."""

    annotations: Annotations
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.annotations.image_ids)

    def info(self, index: int) -> ImageInfo:
        height, width = self.annotations.image_sizes[index].tolist()
        labels = self.annotations.labels[self.annotations.rows(index)]
        return ImageInfo(self.annotations.image_ids[index].item(), (height, width), labels)


def dataset_of(content: dict[str, Any]) -> ColumnDataset:
    """Columns of a COCO or LVIS dictionary; masks must be polygons or run lengths."""
    builder = Builder()
    rows = {
        image["id"]: builder.image(image["id"], (image["height"], image["width"]), str(image["id"]))
        for image in content["images"]
    }
    labels = {category["id"]: label for label, category in enumerate(content["categories"])}
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        mask = entry.get("segmentation")
        builder.annotation(
            entry["id"],
            rows[entry["image_id"]],
            box=(x, y, x + w, y + h),
            stated=(x, y, w, h),
            label=labels[entry["category_id"]],
            area=entry["area"],
            ignore=bool(entry.get("iscrowd")),
            crowd=bool(entry.get("iscrowd")),
            polygons=mask if isinstance(mask, list) else None,
            counts=check_rle(mask) if isinstance(mask, dict) else None,
        )
    annotations = builder.finish()
    if content["images"] and "neg_category_ids" in content["images"][0]:
        annotations = copy.copy(annotations)
        columns = {
            "neg_labels": [[labels[c] for c in image["neg_category_ids"]] for image in content["images"]],
            "not_exhaustive_labels": [
                [labels[c] for c in image["not_exhaustive_category_ids"]] for image in content["images"]
            ],
        }
        for name, values in columns.items():
            object.__setattr__(annotations, name, Ragged.of(values))
        object.__setattr__(annotations, "frequencies", np.array([c["frequency"] for c in content["categories"]]))
    return ColumnDataset(
        annotations, tuple(c["name"] for c in content["categories"]), tuple(c["id"] for c in content["categories"])
    )


def official_coco(content: dict[str, Any], results: list[dict[str, Any]], kind: str) -> COCOeval:
    """pycocotools on copies of the dictionaries; ``stats`` and ``eval`` are filled."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(content)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


COCO_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR@1", "AR@10", "AR@100", "ARs", "ARm", "ARl")


class OldNumpy:
    """numpy with the names that it has removed, for modules that still use them; numpy itself stays as it is."""

    float = float

    @staticmethod
    def in1d(values, test):
        return np.isin(values, test).reshape(-1)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def official_lvis(content: dict[str, Any], results: list[dict[str, Any]], kind: str):
    """The package lvis on copies of the dictionaries; ``results`` and ``eval`` are filled."""
    import lvis.eval
    from lvis import LVIS, LVISEval, LVISResults

    class InMemory(LVIS):
        def _load_json(self, path):
            return path

    class InMemoryResults(LVISResults):
        def _load_json(self, path):
            return path

    truth = InMemory(copy.deepcopy(content))  # type: ignore[arg-type]
    found = InMemoryResults(truth, copy.deepcopy(results))
    lvis.eval.np = OldNumpy()
    try:
        evaluation = LVISEval(truth, found, kind)
        evaluation.run()
    finally:
        lvis.eval.np = np
    return evaluation
