"""Comparing two detectors on the same data."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..datasets.adapter import OnFault
from ..deployment.certificate import parts_of
from ..errors import SdkError
from ..evaluators.base import Report
from ..evaluators.choosing import NamedProtocol
from ..inference.given import are_predictions
from ..inference.scoring import evaluator_of
from ..insight.comparison import Comparison, Model, compare_reports
from ..insight.slicing import slices_of
from ..opening import scored_split
from ..reports.progress import say
from ..results.exported import ExportedDetector

PAGE = "comparison.html"


def compare(
    a: Any,
    b: Any,
    *,
    dataset: Any = None,
    split: str | None = None,
    on_fault: OnFault = "raise",
    protocol: NamedProtocol | None = None,
    slices: Mapping[str, Any] | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    batch_size: int = 1,
    workers: int | None = None,
    device: str | None = None,
    out: str | os.PathLike | None = None,
) -> Comparison:
    """Whether ``b`` is better than ``a``, or only lucky: every difference with its interval.

    Images are drawn with replacement, the same for both, and an image drawn twice counts twice; nothing is matched
    anew. See docs/comparing.md.

    Args:
        a, b: reports of ``sdk.evaluate``, or what that takes: runs, detectors, names, results files.
        dataset: whose images are scored, where ``a`` or ``b`` is no report.
        split, on_fault, protocol, batch_size, workers, device: as in ``sdk.evaluate``.
        slices: name of an attribute to its values by image, as in ``sdk.evaluate``.
        resamples: how often all images are drawn.
        level: of the intervals.
        seed: of the draws.
        out: folder for ``comparison.html``, with the images that changed most.

    Raises:
        SdkError: when data, protocol or classes differ; the text says what does.
    """
    drawn = not any(are_predictions(what) for what in (a, b))
    shown = None if dataset is None else scored_split(dataset, split, on_fault, drawn=drawn)
    reports, models = [], []
    for name, what in (("a", a), ("b", b)):
        if isinstance(what, Report):
            reports.append(what)
            models.append(Model(name))
            continue
        if shown is None:
            raise SdkError(f"{name}: {what} is no report; say on which data it is compared, with dataset=")
        start = time.perf_counter()
        evaluator, trained = evaluator_of(shown, what, protocol, batch_size=batch_size, workers=workers, device=device)
        seconds = (time.perf_counter() - start) / max(len(shown), 1)
        reports.append(evaluator.compute())
        title = Path(what).name if isinstance(what, (str, os.PathLike)) else repr(what)
        if trained is None:
            models.append(Model(title))
        elif isinstance(trained.model, ExportedDetector):
            # Its weights are in the file, in whatever form.
            size = sum(part.stat().st_size for part in parts_of(Path(what))) / 1e6
            models.append(Model(title, None, size, seconds))
        else:
            weights = list(trained.model.parameters())
            size = sum(p.numel() * p.element_size() for p in weights) / 1e6
            models.append(Model(trained.source, sum(p.numel() for p in weights), size, seconds))
    if slices and shown is None:
        raise SdkError("slices: say of which data these are attributes, with dataset=")
    masks = slices_of(slices, shown) if slices and shown is not None else None
    comparison = compare_reports(
        reports[0],
        reports[1],
        slices=masks,
        resamples=resamples,
        level=level,
        seed=seed,
        models=(models[0], models[1]),
    )
    if out is not None:
        say(f"the page is {comparison.page(Path(out) / PAGE, shown)}")
    return comparison
