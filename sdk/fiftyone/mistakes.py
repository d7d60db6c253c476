"""Annotations that are probably wrong, by what a detector is sure of.

Shape letters: D detections that the protocol looks at, G ground truths, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..evaluators.analysis import ERRORS, ErrorBreakdown
from ..evaluators.matching import Matches


@dataclass(frozen=True)
class Mistakes:
    """How likely an annotation is a mistake of the annotator's, 0..1, and which one.

    missing: (D,) the score of a detection where nothing is annotated, 0 for others. wrong: (G,) how likely the ground
    truth is mistaken. kind: (G,) ``label`` (the detector is that sure of another class there), ``location`` (of the
    same class in another box), ``spurious`` (it sees nothing there, and it finds this share of the class's other
    objects), or "" where nothing speaks against it.
    """

    missing: np.ndarray
    wrong: np.ndarray
    kind: np.ndarray


def likely_mistakes(matches: Matches, breakdown: ErrorBreakdown, truth_labels: np.ndarray) -> Mistakes:
    """Reads the mistakenness of annotations from the detector's own scores.

    truth_labels: (G,). What was found is not under suspicion.
    """
    scores = matches.found.scores
    missing = np.where(breakdown.kind == ERRORS.index("background"), scores, 0.0)
    wrong, kind = np.zeros(len(truth_labels)), np.full(len(truth_labels), "", "<U8")
    for error, name in (("localization", "location"), ("classification", "label")):
        about = np.flatnonzero((breakdown.kind == ERRORS.index(error)) & (breakdown.truth >= 0))
        about = about[matches.missed[breakdown.truth[about]]]
        best = np.zeros(len(wrong))
        np.maximum.at(best, breakdown.truth[about], scores[about])
        more = best > wrong
        wrong[more], kind[more] = best[more], name
    counted = ~matches.truth_ignored
    classes = int(truth_labels.max(initial=-1)) + 1
    found = np.bincount(truth_labels[counted & (matches.detection >= 0)], minlength=classes)
    recall = found / np.maximum(np.bincount(truth_labels[counted], minlength=classes), 1)
    unseen = breakdown.missed & (kind == "")
    wrong[unseen], kind[unseen] = recall[truth_labels[unseen]], "spurious"
    return Mistakes(missing, wrong, kind)
