"""Our scoring protocols as evaluation methods of FiftyOne.

``dataset.evaluate_detections("predictions", "ground_truth", eval_key="eval", method="sdk-coco")`` then gives the
official figures in the Model Evaluation panel, and marks every object by the same matching from which they come.

Shape letters: T IoU thresholds, K classes, R recall levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fiftyone as fo
import numpy as np
import torch
from fiftyone.utils.eval.coco import COCODetectionResults
from fiftyone.utils.eval.detection import DetectionEvaluation, DetectionEvaluationConfig

from ..datasets.masks import decode
from ..errors import SdkError
from ..evaluators.analysis import ERRORS, error_breakdown
from ..evaluators.base import Evaluator, Report
from ..evaluators.figures import curve_of
from ..evaluators.matching import RECALL_LEVELS, Matches
from ..inference.given import fitting_evaluator
from ..models.structures import Detections
from .converting import FiftyOneDataset, from_fiftyone
from .labels import box_of, counts_of
from .mistakes import likely_mistakes

PROTOCOLS = ("coco", "lvis", "voc", "cityscapes", "wider_face")
# What is written to labels and samples beside FiftyOne's own tp, fp, fn, id and iou.
PREDICTION_FIELDS = {"error": fo.StringField, "missing": fo.FloatField}
TRUTH_FIELDS = {"mistake": fo.StringField, "mistakenness": fo.FloatField}
# So many samples' labels are held in memory while their marks are written.
SAMPLES_AT_ONCE = 200


class ProtocolEvaluationConfig(DetectionEvaluationConfig):
    """How detections are scored.

    protocol: coco, lvis, voc, cityscapes or wider_face; by default that of the dataset. iou: threshold at which objects
    are marked; the figures are those of the protocol. evaluator: one that already has the detections, in the order of
    the labels; without it the labels are read from FiftyOne as they are by now.
    """

    def __init__(
        self,
        pred_field: str,
        gt_field: str,
        protocol: str | None = None,
        iou: float = 0.5,
        evaluator: Evaluator | None = None,
        **settings: Any,
    ) -> None:
        # FiftyOne hands over settings of its own (classwise, masks), which the protocol decides here.
        for decided in ("classwise", "use_masks", "use_boxes"):
            settings.pop(decided, None)
        super().__init__(pred_field, gt_field, iou=iou, **settings)
        self.protocol = protocol
        # Not public: FiftyOne stores public attributes.
        self._evaluator = evaluator

    @property
    def method(self) -> str:
        return "sdk" if self.protocol is None else f"sdk-{self.protocol}"

    @property
    def requires_additional_fields(self) -> bool:
        return True


class ProtocolEvaluation(DetectionEvaluation):
    """Scores all samples at once, takes its matches image by image, then writes all marks.

    Marks are written a label field at a time: saving a sample whose labels were changed one by one takes FiftyOne time
    that grows with the square of their number (a minute for 700).
    """

    config: ProtocolEvaluationConfig

    def register_samples(self, samples: Any, eval_key: str | None, dynamic: bool = True) -> None:
        """Declares the fields and scores."""
        super().register_samples(samples, eval_key, dynamic=dynamic)
        if eval_key is not None:
            samples._dataset.add_sample_field(f"{eval_key}_mistakes", fo.FloatField)
            for field, extra in ((self.pred_field, PREDICTION_FIELDS), (self.gt_field, TRUTH_FIELDS)):
                for name, kind in extra.items():
                    samples._dataset.add_sample_field(f"{field}.detections.{eval_key}_{name}", kind)
        evaluator: Any = self.config._evaluator
        if evaluator is None:
            dataset = from_fiftyone(samples, self.config.gt_field, protocol=self.config.protocol)
            evaluator = _evaluator_of(dataset, samples, self.config.pred_field, self.config.protocol)
            self._rows = {sample_id: row for row, sample_id in enumerate(dataset.sample_ids)}
        else:
            ids = samples.values(["id", "image_id"])
            self._rows = {sample_id: evaluator.truth.position[image_id] for sample_id, image_id in zip(*ids)}
        self.report = evaluator.compute()
        self._truth = evaluator.truth
        kind = self.report.main.partition("/")[0]
        self._matches = evaluator.matches(kind, iou=self.config.iou)
        if len(self._matches.detection) != len(self._truth.labels):
            raise SdkError(
                f"{self.gt_field} has {len(self._truth.labels)} objects, and the protocol scores those "
                f"{len(self._matches.detection)} of its own files; score what was edited by another protocol"
            )
        self.scored = evaluator.scored(kind) if hasattr(evaluator, "scored") else None
        self.breakdown = error_breakdown(evaluator.compared(kind))
        self._mistakes = None
        if self.breakdown is not None:
            self._mistakes = likely_mistakes(self._matches, self.breakdown, self._truth.labels)
        self.best_score = best_score(self._matches)
        found = self._matches.found
        self._order = np.argsort(found.images, kind="stable")
        self._starts = np.searchsorted(found.images[self._order], np.arange(len(self._truth.image_ids) + 1))
        self._marks: dict[str, dict[str, Any]] = {}

    def evaluate(self, doc: Any, eval_key: str | None = None) -> list[tuple]:
        """The matches of one sample; what its labels are marked with is kept."""
        row = self._rows[doc.id]
        start, stop = (int(v) for v in self._truth.offsets[row : row + 2])
        gts, preds = (doc[f].detections if doc[f] is not None else [] for f in (self.gt_field, self.pred_field))
        own = self._order[self._starts[row] : self._starts[row + 1]]
        matches = self._matches
        if len(gts) != stop - start or (len(own) and matches.found.index[own].max() >= len(preds)):
            raise SdkError(
                f"{doc.filepath}: the labels are not those that were scored (now {len(gts)} objects and {len(preds)} "
                f"predictions, scored were {stop - start} objects); evaluate again without an evaluator"
            )
        by_row = {int(d): preds[matches.found.index[d]] for d in own}
        result, paired = [], set()
        for d, pred in by_row.items():
            truth = int(matches.truth[d])
            gt = gts[truth - start] if truth >= 0 else None
            mark = "ignored" if matches.ignored[d] else "tp" if gt is not None else "fp"
            self._mark(pred, mark, gt, float(matches.iou[d]), self._explained(d))
            if mark == "tp" and gt is not None:
                result.append((gt.label, pred.label, float(matches.iou[d]), pred.confidence, gt.id, pred.id))
            elif mark == "fp":
                taken = self._taken_for(d)
                if taken is None or taken in paired:
                    result.append((None, pred.label, None, pred.confidence, None, pred.id))
                else:
                    # The confusion matrix shows what was taken for what; counted is one false and one missed object.
                    paired.add(taken)
                    gt = gts[taken - start]
                    result.append((gt.label, pred.label, None, pred.confidence, gt.id, pred.id))
        for truth, gt in enumerate(gts, start):
            d = int(matches.detection[truth])
            mark = "ignored" if matches.truth_ignored[truth] else "tp" if d >= 0 else "fn"
            self._mark(gt, mark, by_row.get(d), float(matches.iou[d]) if d >= 0 else 0.0, self._doubted(truth))
            if mark == "fn" and truth not in paired:
                result.append((gt.label, None, None, None, gt.id, None))
        if eval_key is not None:
            wrong = own[matches.false_positive[own]]
            doc[f"{eval_key}_mistakes"] = float(matches.found.scores[wrong].sum() + matches.missed[start:stop].sum())
        return result

    def _mark(self, label: Any, mark: str, partner: Any, iou: float, more: dict[str, Any]) -> None:
        about = {"_id": "", "_iou": None} if partner is None else {"_id": partner.id, "_iou": iou}
        self._marks[label.id] = {"": mark, **about, **more}

    def _explained(self, d: int) -> dict[str, Any]:
        """What is wrong with a detection."""
        if self.breakdown is None or self._mistakes is None or self.breakdown.kind[d] < 0:
            return {}
        missing = float(self._mistakes.missing[d])
        return {"_error": ERRORS[self.breakdown.kind[d]], **({"_missing": missing} if missing > 0 else {})}

    def _doubted(self, truth: int) -> dict[str, Any]:
        """Why a ground truth is probably wrong."""
        if self._mistakes is None or not self._mistakes.kind[truth]:
            return {}
        return {"_mistake": str(self._mistakes.kind[truth]), "_mistakenness": float(self._mistakes.wrong[truth])}

    def _write_marks(self, dataset: Any, sample_ids: Sequence[str], eval_key: str) -> None:
        """Marks the labels of the whole samples, also where the scored view shows some of their labels only."""
        for start in range(0, len(sample_ids), SAMPLES_AT_ONCE):
            part = dataset.select(sample_ids[start : start + SAMPLES_AT_ONCE])
            marked: dict[Any, dict[str, Any]] = {self.gt_field: {}, self.pred_field: {}}
            for sample in part.select_fields([self.gt_field, self.pred_field]).iter_samples():
                for field, by_sample in marked.items():
                    for label in () if sample[field] is None else sample[field].detections:
                        for name, value in self._marks.get(label.id, {}).items():
                            label[eval_key + name] = value
                    by_sample[sample.id] = sample[field]
            for field, by_sample in marked.items():
                part.set_values(field, by_sample, key_field="id", dynamic=False)

    def _taken_for(self, d: int) -> int | None:
        """The missed ground truth of another class that a false detection lies on."""
        if self.breakdown is None or self.breakdown.kind[d] != ERRORS.index("classification"):
            return None
        truth = int(self.breakdown.truth[d])
        return truth if self._matches.missed[truth] else None

    def generate_results(self, samples, matches, eval_key=None, classes=None, missing=None, progress=None):
        """Writes the marks; gives figures, curves and matches."""
        if eval_key is not None:
            self._write_marks(samples._dataset, samples.values("id"), eval_key)
        precision, recall, thresholds, ious = curves_of(self.report, self.scored, self._truth.classes)
        figures = {name: figure.value for name, figure in self.report.metrics.items()}
        return ProtocolResults(
            samples,
            self.config,
            eval_key,
            matches,
            precision,
            RECALL_LEVELS,
            ious,
            list(self._truth.classes),
            recall_sweep=recall,
            thresholds=thresholds,
            missing=missing,
            custom_metrics=self._shown(figures),
            figures=figures,
            errors=None if self.breakdown is None else self.breakdown.costs,
            best_score=self.best_score,
            protocol=self.report.protocol,
            backend=self,
        )

    def _shown(self, figures: dict[str, float | None]) -> dict[str, dict]:
        """Figures and error costs as the panel lists them."""
        rows = {name: (value, False) for name, value in figures.items() if value is not None}
        if self.breakdown is not None:
            rows |= {f"AP50 lost to {name}": (value, True) for name, value in self.breakdown.costs.items()}
        return {
            f"sdk/{name}": {"key": name, "value": value, "label": name, "lower_is_better": lower}
            for name, (value, lower) in rows.items()
        }

    def _own_fields(self, eval_key: str) -> list[str]:
        fields = [f"{eval_key}_mistakes"]
        for field, extra in ((self.config.pred_field, PREDICTION_FIELDS), (self.config.gt_field, TRUTH_FIELDS)):
            fields += [f"{field}.detections.{eval_key}_{name}" for name in extra]
        return fields

    def get_fields(self, samples, eval_key, include_custom_metrics=True):
        """Every field that an evaluation writes."""
        return super().get_fields(samples, eval_key, include_custom_metrics) + self._own_fields(eval_key)

    def cleanup(self, samples, eval_key):
        """Removes what the evaluation wrote."""
        super().cleanup(samples, eval_key)
        present = [field for field in self._own_fields(eval_key) if samples._dataset.has_field(field)]
        samples._dataset.delete_sample_fields(present)


class ProtocolResults(COCODetectionResults):
    """Official figures with FiftyOne's tables and plots.

    figures: every figure of the protocol by name, the main one first; none where it does not exist. errors: what each
    kind of error costs in AP50. protocol: name and version. best_score: see the function of this name.
    """

    def __init__(self, *args, figures=None, errors=None, protocol=None, best_score=0.0, **settings) -> None:
        super().__init__(*args, **settings)
        self.figures: dict[str, float | None] = figures or {}
        self.errors, self.protocol, self.best_score = errors, protocol, best_score

    def mAP(self, classes=None):
        """The protocol's main figure; the mean over some classes' curves where ``classes`` are given; or none."""
        if classes is not None or not self.figures:
            return existing(super().mAP(classes))
        return next(iter(self.figures.values()))

    def mAR(self, classes=None):
        """Recall averaged over thresholds and classes; none where the protocol draws no curve for a class."""
        return existing(super().mAR(classes))

    @classmethod
    def _from_dict(cls, d, samples, config, eval_key, **settings):
        own = {name: d.get(name) for name in ("figures", "errors", "protocol", "best_score")}
        return super()._from_dict(d, samples, config, eval_key, **own, **settings)


def existing(figure: float) -> float | None:
    """A figure of FiftyOne's, which is -1 where there is none."""
    return None if figure < 0 else float(figure)


def results_of(dataset: Any, eval_key: str) -> ProtocolResults:
    """The results of an evaluation. Raises SdkError where it is none of our protocols'."""
    results = dataset.load_evaluation_results(eval_key)
    if not isinstance(results, ProtocolResults):
        raise SdkError(f"{eval_key}: not an evaluation by one of our protocols")
    return results


def best_score(matches: Matches) -> float:
    """The score from which on the detections of all classes have the highest F1; 0 where none is true."""
    counted = ~matches.ignored
    order = np.argsort(-matches.found.scores[counted], kind="stable")
    scores, true = matches.found.scores[counted][order], np.cumsum(matches.true_positive[counted][order])
    # Equal scores stand or fall together: only the last of them is a place to cut.
    cut = np.flatnonzero(np.diff(scores, append=-np.inf))
    objects = int((~matches.truth_ignored).sum())
    f1 = 2 * true[cut] / (cut + 1 + max(objects, 1))
    return float(scores[cut[f1.argmax()]]) if f1.max(initial=0) > 0 else 0.0


def curves_of(report: Report, scored: Any, classes: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[float]]:
    """(T, K, R) precision, (T, K) recall, (T, K, R) score thresholds, T IoU thresholds; -1 for classes without objects.

    From the matching where the protocol has all thresholds, else from the report's curves at one.
    """
    if scored is not None:
        present = scored.curves.positives[0] > 0
        precision = np.where(present[:, None], scored.curves.precision[0], -1.0)
        recall = np.where(present, scored.curves.recall[0], -1.0)
        return precision, recall, scored.curves.scores[0], [float(t) for t in scored.thresholds]
    precision = np.full((1, len(classes), len(RECALL_LEVELS)), -1.0)
    thresholds, recall = np.zeros_like(precision), np.full(precision.shape[:2], -1.0)
    for name, curve in report.curves.items():
        if name not in classes:
            continue
        k = list(classes).index(name)
        reached, precise, score = (np.asarray(values, np.float64) for values in curve_of(curve))
        precision[0, k] = recall[0, k] = 0.0
        if not len(reached):
            continue
        envelope = np.maximum.accumulate(precise[::-1])[::-1]
        at = np.searchsorted(reached, RECALL_LEVELS)
        there = at < len(reached)
        precision[0, k, there], thresholds[0, k, there] = envelope[at[there]], score[at[there]]
        recall[0, k] = reached.max()
    return precision, recall, thresholds, [0.5]


def _evaluator_of(dataset: FiftyOneDataset, samples: Any, field: str, protocol: str | None) -> Any:
    """The evaluator of the labels of a field; image after image, so that masks do not pile up."""
    label_of = {name: i for i, name in enumerate(dataset.classes)}
    masked = dataset.annotations.segments is not None and samples.count(f"{field}.detections.mask") > 0
    evaluator = fitting_evaluator(dataset, masked, protocol)
    for row, sample in enumerate(samples.select_fields(field).iter_samples()):
        height, width = (int(v) for v in dataset.annotations.image_sizes[row])
        size = (height, width)
        labels = [] if sample[field] is None else sample[field].detections
        unknown = {label.label for label in labels} - label_of.keys()
        if unknown:
            raise SdkError(f"{field}: the dataset has no class {sorted(unknown)[0]!r}; it has {list(label_of)[:10]}")
        boxes = [box_of(label, size) for label in labels]
        masks = None
        if masked:
            decoded = np.zeros((len(labels), *size), bool)
            for i, (label, box) in enumerate(zip(labels, boxes)):
                counts = counts_of(label, box, size)
                if counts is not None:
                    decoded[i] = decode({"size": list(size), "counts": counts})
            masks = torch.from_numpy(decoded)
        found = Detections(
            torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float64),
            torch.tensor([label.confidence or 0.0 for label in labels], dtype=torch.float64),
            torch.tensor([label_of[label.label] for label in labels], dtype=torch.int64),
            masks,
        )
        image_id = dataset.annotations.image_ids[row]
        evaluator.update([image_id.item()], [found])
    return evaluator


def register() -> None:
    """Makes the protocols known to FiftyOne, as ``sdk`` (the dataset's own) and ``sdk-coco``, ``sdk-lvis`` ..."""
    backends = fo.evaluation_config.detection_backends
    config_cls = f"{ProtocolEvaluationConfig.__module__}.{ProtocolEvaluationConfig.__name__}"
    backends["sdk"] = {"config_cls": config_cls}
    for protocol in PROTOCOLS:
        backends[f"sdk-{protocol}"] = {"config_cls": config_cls, "protocol": protocol}
