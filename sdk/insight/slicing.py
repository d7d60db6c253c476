"""Parts of a data set by the person's own attributes of its images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..datasets.base import DetectionDataset
from ..datasets.combining import group_values
from ..errors import SdkError
from ..evaluators.base import Report, Value
from ..evaluators.weighting import in_blocks

Masks = dict[str, dict[str, np.ndarray]]
"""Attribute to value to (M,) bool, the images that have it."""


def slices_of(slices: Mapping[str, Any], dataset: DetectionDataset) -> Masks:
    """The images of each value of each attribute; an image whose value is None or NaN is in no slice.

    slices: name of an attribute to a function of an ``ImageInfo``, a mapping from image ids to values, a sequence of
    values in the dataset's order, or the name of such a sequence that the dataset has.

    Raises:
        DatasetError: for a column of another length, images without a value, or an attribute that is not there.
        SdkError: when no image has a value.
    """
    masks: Masks = {}
    for name, given in slices.items():
        values = np.empty(len(dataset), object)
        values[:] = [v.item() if isinstance(v, np.generic) else v for v in group_values(dataset, given)]
        known = sorted({v for v in values if v is not None and v == v}, key=lambda v: (str(type(v)), v))
        if not known:
            raise SdkError(f"slices: {name}: no image has a value")
        masks[name] = {str(value): values == value for value in known}
    return masks


def slice_figures(report: Report, masks: Masks) -> dict[str, dict[str, dict[str, Value]]]:
    """Attribute, value and figure to the figure over the images that have the value.

    Raises:
        SdkError: when the report's figures cannot be restricted to images.
    """
    if not hasattr(report.evaluator, "weighable"):
        raise SdkError(f"slices: figures by {report.protocol} cannot be restricted to some images")
    table: dict[str, dict[str, dict[str, Value]]] = {}
    for name, values in masks.items():
        weights = np.stack(list(values.values()), axis=1)
        table[name] = {value: {} for value in values}
        for kind in report.kinds:
            for figure, (found, _) in report.evaluator.weighable(kind).values(in_blocks(weights)).items():
                for value, number in zip(values, found):
                    exists = not np.isnan(number)
                    table[name][value][f"{kind}/{figure}"] = (
                        Value(float(number)) if exists else Value(None, "no ground truth in these images")
                    )
    return table
