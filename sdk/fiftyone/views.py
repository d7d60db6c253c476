"""The views that show where a detector fails, saved with the FiftyOne dataset."""

from __future__ import annotations

from typing import Any

from .converting import GROUND_TRUTH
from .evaluation import results_of

SURE = 0.5
"""Share of a class's objects that a detector has to find before it casts doubt on the others."""

# Ground truth in green, predictions in colours that stand out from it and from each other.
TRUTH_COLOR = "#3fd97f"
PREDICTION_COLORS = ("#ff7a1a", "#b57bff", "#2fb5ff", "#ff5fa2", "#ffd23f")
WORKSPACE = "evaluation"


def set_appearance(made: Any) -> None:
    """Gives every field of labels its colour, and saves a workspace with images and evaluation side by side."""
    import fiftyone as fo

    labels = made.get_field_schema(embedded_doc_type=fo.Detections)
    predictions = [name for name in labels if name != GROUND_TRUTH]
    colors = {GROUND_TRUTH: TRUTH_COLOR}
    colors |= {name: PREDICTION_COLORS[i % len(PREDICTION_COLORS)] for i, name in enumerate(predictions)}
    made.app_config.color_scheme = fo.ColorScheme(
        color_by="field", fields=[{"path": path, "fieldColor": color} for path, color in colors.items()]
    )
    made.save()
    if predictions:
        panels = [fo.Panel(type="Samples", pinned=True), fo.Panel(type="model_evaluation_panel_builtin")]
        halves = [fo.Space(children=[panel], active_child=panel.component_id) for panel in panels]
        spaces = fo.Space(children=halves, orientation="horizontal")
        made.save_workspace(WORKSPACE, spaces, description="images beside their evaluation", overwrite=True)


def save_views(made: Any, *, prediction: str | None = None, eval_key: str | None = None) -> list[str]:
    """Saves the views of the ground truth, or of an evaluated field of predictions; gives their names.

    Views of several models stand side by side: their names end in the field's. Older ones are replaced.
    """
    from fiftyone import ViewField as F

    views: dict[str, tuple[Any, str]] = {}
    objects = f"{GROUND_TRUTH}.detections"
    if prediction is None:
        small = made.filter_labels(GROUND_TRUTH, F("object_size") == "small")
        views["small objects"] = (small, "ground truths of less than 32 x 32 pixels")
        empty = made.match(F(objects).length() == 0)
        views["images without objects"] = (empty, "nothing is annotated; what is found there is false")
        ignored = made.filter_labels(GROUND_TRUTH, F("ignore") | F("iscrowd"))
        views["ignored objects"] = (ignored, "crowd, difficult or invalid: neither found nor missed")
    else:
        best = results_of(made, str(eval_key)).best_score

        def found(condition: Any) -> Any:
            return made.filter_labels(prediction, condition).sort_by(
                F(f"{prediction}.detections.confidence").max(), reverse=True
            )

        def missed(condition: Any) -> Any:
            return made.filter_labels(GROUND_TRUTH, condition)

        error, mark, mistake = F(f"{eval_key}_error"), F(eval_key), F(f"{eval_key}_mistake")
        worst = made.match(F(f"{eval_key}_mistakes") > 0).sort_by(f"{eval_key}_mistakes", reverse=True)
        confident = made.filter_labels(prediction, F("confidence") >= best, only_matches=False)
        views = {
            "confident predictions": (
                confident,
                f"all images; detections from score {best:.3f}, where precision and recall together are best",
            ),
            "worst images": (worst, "most missed objects and most confident false detections first"),
            "confident false positives": (
                found((mark == "fp") & (F("confidence") >= best)),
                f"false detections from score {best:.3f}, where precision and recall together are best",
            ),
            "missed objects": (missed(mark == "fn"), "ground truths that no detection matches"),
            "missed small objects": (
                missed((mark == "fn") & (F("object_size") == "small")),
                "missed ground truths of less than 32 x 32 pixels",
            ),
            "localization errors": (found(error == "localization"), "the right class, IoU between 0.1 and 0.5"),
            "class confusions": (found(error == "classification"), "on an object of another class"),
            "duplicates": (found(error == "duplicate"), "on an object that a better detection has"),
            "background": (found(error == "background"), "where nothing is annotated"),
            "likely wrong labels": (missed(mistake == "label"), "the detector is sure of another class"),
            "likely wrong boxes": (missed(mistake == "location"), "the detector is sure of another box"),
            "likely spurious objects": (
                missed((mistake == "spurious") & (F(f"{eval_key}_mistakenness") >= SURE)),
                "annotated, and the detector sees nothing there though it finds most others of the class",
            ),
            "likely missing annotations": (
                found(F(f"{eval_key}_missing") >= best),
                "the detector is sure of an object, and nothing is annotated",
            ),
        }
    suffix = "" if prediction is None or prediction == "predictions" else f" ({prediction})"
    for name, (view, description) in views.items():
        made.save_view(name + suffix, view, description=description, overwrite=True)
    return [name + suffix for name in views]
