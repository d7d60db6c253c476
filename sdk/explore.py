"""Looking at ground truth and predictions in the FiftyOne App."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .evaluate import scored_split
from .fiftyone.converting import GROUND_TRUTH, to_fiftyone
from .fiftyone.predictions import add_predictions, predictions_of, source_of
from .fiftyone.starting import start
from .reporting import say


def explore(
    dataset: Any,
    what: Any = None,
    *,
    split: str | None = None,
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
    """Opens the FiftyOne App on a dataset and what detectors find in it.

    Every object is marked by the official matching: a detection's ``eval`` is ``tp``, ``fp`` or ``ignored``, a ground
    truth's ``tp``, ``fn`` or ``ignored``. ``eval_error`` says what is wrong with a false detection, ``eval_mistake``
    which annotations are probably wrong. The Model Evaluation panel shows the official figures; the saved views lead to
    the worst images, confident false positives, missed objects, localization errors, class confusions, duplicates ...

    The same dataset opens at once the next time, with its tags; so do the predictions of the same weights or file.

    Args:
        dataset: a DetectionDataset; where it carries splits, ``val`` is shown, or ``split``.
        what: a Run or its folder, a detector, a weights file, a name of the zoo, a COCO results file (for every
            protocol), a folder of the protocol's own text files (Pascal VOC, WIDER FACE, Cityscapes), or the
            Detections of all images; none shows the ground truth alone. A mapping from names to these compares several:
            each is a field of that name.
        protocol: ``coco``, ``voc``, ``lvis`` ... instead of the dataset's own.
        name: of the FiftyOne dataset.
        batch_size, workers, device: as in ``sdk.evaluate``.
        address, port: where the App listens; nobody else's machine can reach the default.
        launch: without it the FiftyOne dataset is returned instead of the App's session.
        wait: return only when the App is closed.

    Raises:
        ClassMismatch: when a detector's classes are not the dataset's.
        ImportError: when FiftyOne is not installed.
        SdkError: when its database cannot be reached, or a name is no field name.
    """
    fo = start()
    shown = scored_split(dataset, split)
    made = to_fiftyone(shown, name)
    from .fiftyone.views import save_views, set_appearance

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
    from .fiftyone.evaluation import ProtocolEvaluationConfig, register
    from .fiftyone.views import save_views

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
