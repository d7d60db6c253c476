"""The FiftyOne App on one dataset and what was found in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..datasets.base import DetectionDataset
from ..reports.progress import say
from .converting import GROUND_TRUTH, to_fiftyone
from .predictions import add_predictions, predictions_of, source_of
from .starting import start


def open_app(
    shown: DetectionDataset,
    what: Any = None,
    *,
    protocol: str | None = None,
    name: str | None = None,
    batch_size: int = 1,
    workers: int | None = None,
    device: str | None = None,
    address: str = "127.0.0.1",
    port: int = 5151,
    launch: bool = True,
    wait: bool = False,
) -> Any:
    """Opens the App, or gives the FiftyOne dataset; arguments are those of ``sdk.explore``."""
    fo = start()
    made = to_fiftyone(shown, name)
    from ..fiftyone.views import save_views, set_appearance

    save_views(made)
    models = what if isinstance(what, Mapping) else {} if what is None else {"predictions": what}
    for field, one in models.items():
        _add_model(made, shown, field_name(field), one, protocol, batch_size, workers, device)
    set_appearance(made)
    if not launch:
        return made
    session = fo.launch_app(made, address=address, port=port)
    if wait:
        session.wait()
    return session


def field_name(name: str) -> str:
    """The name of a model as that of a FiftyOne field; ``ground_truth`` is taken."""
    plain = re.sub(r"\W+", "_", name).strip("_").lower() or "predictions"
    return f"{plain}_predictions" if plain[0].isdigit() or plain == GROUND_TRUTH else plain


def _add_model(made: Any, shown: Any, field: str, what: Any, protocol: str | None, *settings: Any) -> None:
    """Predicts, scores and marks; only what is not there yet."""
    from ..fiftyone.evaluation import ProtocolEvaluationConfig, register
    from ..fiftyone.views import save_views

    register()
    eval_key = "eval" if field == "predictions" else f"eval_{field}"
    source = source_of(what)
    known = made.info.get("sources", {})
    if source is not None and known.get(field) == [source, protocol] and eval_key in made.list_evaluations():
        say(f"{field}: already there")
        return
    batch_size, workers, device = settings
    found = predictions_of(shown, what, protocol=protocol, batch_size=batch_size, workers=workers, device=device)
    add_predictions(made, shown, found, field)
    results = made.evaluate_detections(
        field,
        gt_field=GROUND_TRUTH,
        eval_key=eval_key,
        method=ProtocolEvaluationConfig,
        protocol=protocol,
        evaluator=found.evaluator,
    )
    save_views(made, prediction=field, eval_key=eval_key)
    made.info["sources"] = {**known, field: [source, protocol]}
    made.save()
    main, figure = next(iter(results.figures.items()))
    say(f"{field}: {results.protocol}: {main} {'none' if figure is None else f'{figure:.4f}'}")
