"""The operators of our FiftyOne plugin: evaluate, compare, open failures, export fixes.

``python -m sdk.fiftyone.install`` makes them known to FiftyOne; in the App they are found with the ` key.
"""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types

from .converting import GROUND_TRUTH
from .evaluation import PROTOCOLS, ProtocolEvaluationConfig, results_of
from .exporting import export_coco
from .views import save_views, set_appearance


def _predicted_fields(dataset: Any) -> list[str]:
    return [name for name in dataset.get_field_schema(embedded_doc_type=fo.Detections) if name != GROUND_TRUTH]


class EvaluateRun(foo.Operator):
    """Scores a field of predictions by one of our protocols and saves the failure views."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(name="evaluate_run", label="SDK: evaluate predictions", dynamic=True)

    def resolve_input(self, ctx: Any) -> types.Property:
        """Asks for field, protocol and name."""
        inputs = types.Object()
        inputs.enum("field", _predicted_fields(ctx.dataset), required=True, label="Predictions")
        inputs.enum("protocol", PROTOCOLS, default=ctx.dataset.info.get("protocol", "coco"), label="Protocol")
        inputs.str("eval_key", default="eval", required=True, label="Name of the evaluation")
        return types.Property(inputs, view=types.View(label="Evaluate predictions by their official protocol"))

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Evaluates; gives the figures."""
        field, eval_key = ctx.params["field"], ctx.params["eval_key"]
        results = ctx.dataset.evaluate_detections(
            field,
            gt_field=GROUND_TRUTH,
            eval_key=eval_key,
            method=ProtocolEvaluationConfig,
            protocol=ctx.params["protocol"],
        )
        save_views(ctx.dataset, prediction=field, eval_key=eval_key)
        set_appearance(ctx.dataset)
        ctx.ops.reload_dataset()
        return {name: value for name, value in results.figures.items() if value is not None}


class CompareModels(foo.Operator):
    """Shows the figures of two evaluations and the images on which the second one does worse."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(name="compare_models", label="SDK: compare two evaluations", dynamic=True)

    def resolve_input(self, ctx: Any) -> types.Property:
        """Asks for two evaluations."""
        inputs = types.Object()
        for name, label in (("first", "First"), ("second", "Second")):
            inputs.enum(name, ctx.dataset.list_evaluations(type=ProtocolEvaluationConfig), required=True, label=label)
        return types.Property(inputs, view=types.View(label="Compare two evaluations"))

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Opens the view; gives figures as ``first -> second``."""
        first, second = ctx.params["first"], ctx.params["second"]
        ctx.ops.set_view(worse_images(ctx.dataset, first, second))
        return compared(ctx.dataset, first, second)


class OpenFailures(foo.Operator):
    """Opens one of the saved failure views."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(name="open_failures", label="SDK: open a failure view", dynamic=True)

    def resolve_input(self, ctx: Any) -> types.Property:
        """Asks for the view."""
        inputs = types.Object()
        inputs.enum("view", ctx.dataset.list_saved_views(), required=True, label="View")
        return types.Property(inputs, view=types.View(label="Open a failure view"))

    def execute(self, ctx: Any) -> None:
        """Opens it."""
        ctx.ops.set_view(ctx.dataset.load_saved_view(ctx.params["view"]))


class ExportFixes(foo.Operator):
    """Writes the current view as a new COCO file; the original files stay as they are."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(name="export_fixes", label="SDK: export as a COCO file")

    def resolve_input(self, ctx: Any) -> types.Property:
        """Asks for the file."""
        inputs = types.Object()
        inputs.str("path", required=True, label="New file, on the machine that FiftyOne runs on")
        return types.Property(inputs, view=types.View(label="Export the current view"))

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Writes it; gives its name."""
        export_coco(ctx.view, ctx.params["path"])
        return {"written": ctx.params["path"]}


def compared(dataset: Any, first: str, second: str) -> dict[str, str]:
    """The figures of two evaluations by name, as ``first -> second (difference)``."""
    one, other = (results_of(dataset, key).figures for key in (first, second))
    found = {}
    for name, before in one.items():
        after = other.get(name)
        if before is not None and after is not None:
            found[name] = f"{before:.4f} -> {after:.4f} ({after - before:+.4f})"
    return found


def worse_images(dataset: Any, first: str, second: str) -> Any:
    """The images where the second evaluation counts more mistakes than the first, the largest difference first."""
    more = fo.ViewField(f"{second}_mistakes") - fo.ViewField(f"{first}_mistakes")
    return dataset.match(more > 0).sort_by(more, reverse=True)


OPERATORS = (EvaluateRun, CompareModels, OpenFailures, ExportFixes)
