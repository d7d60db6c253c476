"""The zoo to look through: lists, model cards, and files to hand on."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SdkError
from ..models.zoo import find_recipe, parity
from ..models.zoo.index import Entry, entry_of, index

if TYPE_CHECKING:
    from ..results.run import Run

# What a card and an export need is imported there: a list is shown without PyTorch.

COLUMNS = {
    "box_ap": "box AP",
    "mask_ap": "mask AP",
    "ar_1000": "AR@1000",
    "fps": "images/s",
    "memory_gb": "training GB",
}
"""Titles of the published columns that a list shows."""


def entries(
    pattern: str = "*",
    *,
    method: str | None = None,
    dataset: str | None = None,
    backbone: str | None = None,
    min_ap: float | None = None,
    max_parameters: float | None = None,
) -> list[Entry]:
    """The names that fit, in alphabetical order.

    Args:
        pattern: of the name, as for files: ``retinanet*``.
        method: of the method, such as ``*rcnn``.
        dataset: what it was trained on, such as ``coco`` or ``lvis*``.
        backbone: part of the backbone's name, such as ``resnet50``.
        min_ap: smallest published box AP in percent.
        max_parameters: largest number of parameters, in millions.

    Raises:
        SdkError: when nothing fits.
    """
    found = [
        entry
        for entry in index().values()
        if fnmatch(entry.name, pattern)
        and (method is None or fnmatch(entry.method, method))
        and (dataset is None or fnmatch(entry.dataset, dataset))
        and (backbone is None or backbone.lower() in entry.backbone)
        and (min_ap is None or entry.figures.get("box_ap", -1.0) >= min_ap)
        and (max_parameters is None or entry.parameters <= max_parameters * 1e6)
    ]
    if not found:
        raise SdkError(f"no model of the {len(index())} is named {pattern!r} and fits all that was asked for")
    return found


def rows(found: Sequence[Entry]) -> list[tuple[str, ...]]:
    """Header and one row an entry."""
    header = ("name", "method", "backbone", "dataset", "epochs", "published")
    return [header] + [(e.name, e.method, e.backbone, e.dataset, str(e.epochs), _in_short(e)) for e in found]


def _in_short(entry: Entry) -> str:
    return ", ".join(f"{COLUMNS[key]} {value:g}" for key, value in entry.figures.items() if key in COLUMNS)


def description(name: str) -> str:
    """Everything that a recipe says, one line a field."""
    recipe = find_recipe(name)
    entry = entry_of(recipe)
    shown = {field: value for field, value in vars(recipe).items() if field not in ("build", "published")}
    shown |= {"method": entry.method, "backbone": entry.backbone, "parameters": f"{entry.parameters:,}"}
    shown |= {f"published {column}": value for column, value in recipe.published.items()}
    return "\n".join(f"{field.replace('_', ' ')}: {value}" for field, value in shown.items())


def card(name: str, runs: Sequence[Run] = ()) -> str:
    """The model card of a name, as Markdown.

    Args:
        name: of the zoo.
        runs: trainings by this recipe, whose evaluations are shown beside those of the published weights.

    Raises:
        SdkError: when a run is of another recipe, or was not evaluated yet.
    """
    recipe = find_recipe(name)
    entry = entry_of(recipe)
    for run in runs:
        if run.manifest["model"]["name"] != name:
            raise SdkError(f"{run.folder}: is a {run.manifest['model']['name']}, and no {name}")
    pixels = recipe.preprocessing
    figures = [f"| {COLUMNS.get(key, key)} | {value:g} |" for key, value in recipe.published.items()]
    trained = f"{recipe.schedule.epochs} epochs at {recipe.images_per_device * recipe.devices} images a step"
    optimizer = f"{recipe.optimizer.kind}, learning rate {recipe.optimizer.lr:g}"
    start = recipe.start_from or recipe.backbone_weights or "random values"
    backbone = f", backbone `{entry.backbone}`" if entry.backbone else ""
    licences = ["Code: Apache License 2.0."]
    if recipe.weights is not None:
        terms = "the terms of the dataset and of its images apply as well."
        licences.append(f"Published weights: Apache License 2.0, by OpenMMLab; {terms}")
    classes = "" if recipe.classes is None else f": {', '.join(recipe.classes)}"
    return "\n".join(
        [
            f"# {name}",
            "",
            f"{recipe.document or 'A small model of this project.'}",
            "",
            f"- Method: `{entry.method}`{backbone}, {entry.parameters / 1e6:.1f} million parameters",
            f"- Dataset: {recipe.dataset}, {recipe.num_classes} classes{classes}",
            f"- Training: {trained}, {optimizer}, precision {recipe.precision}, from {start}",
            f"- Pixels: {pixels.channels}, mean {pixels.mean}, deviation {pixels.std}, size {pixels.size}",
            f"- Weights: {recipe.weights or 'none were published'}",
            f"- Use: `models.create({name!r}, num_classes=dataset)`",
            "",
            "## Published figures",
            "",
            *(["| figure | value |", "|---|---|", *figures] if figures else ["None were published."]),
            "",
            "## Figures measured here",
            "",
            *measured_lines(name, runs),
            "",
            "## Agreement with the reference implementation",
            "",
            *parity_lines(name),
            "",
            "## Licences",
            "",
            " ".join(licences),
            "",
        ]
    )


def measured_lines(name: str, runs: Sequence[Run]) -> list[str]:
    """What a card says of figures that were measured here: of the published weights, then of runs."""
    from ..results.measured import figures_of, kept_figures

    measured = [("Published weights", figures) for figures in kept_figures(name)]
    measured += [(f"Trained here, `{run.folder}`", figures_of(run)) for run in runs]
    if not measured:
        return [f"None yet. `sdk evaluate DATASET {name}` measures the published weights on your copy of the dataset."]
    lines: list[str] = []
    for what, figures in measured:
        counts = figures["counts"]
        dataset = f"{figures['dataset']} of fingerprint {figures['fingerprint'][:12]}, " if "dataset" in figures else ""
        lines += ["", f"{what}; {dataset}{counts['images']} images, {counts['ground_truths']} objects."]
        lines += [f"{figures['protocol']}.", *figures["notes"], "", "| figure | value, of 1 |", "|---|---|"]
        lines += [
            f"| {key} | {value if isinstance(value, str) else format(value, '.4f')} |"
            for key, value in figures["metrics"].items()
        ]
    return lines[1:]


def parity_lines(name: str) -> list[str]:
    """What a card says of the comparison with the reference implementation."""
    record = parity()
    if name not in record["rows"]:
        return ["Not compared."]
    results = [f"| {what} | {result} |" for what, result in record["rows"][name].items()]
    return ["| compared | result |", "|---|---|", *results, "", record["reference"]]


def page() -> str:
    """The table of all names, as Markdown."""
    lines = [
        "# The zoo",
        "",
        "Every name that `models.create` knows, with the figures published for it. Written by `sdk zoo --markdown`.",
    ]
    by_document: dict[str, list[Entry]] = {}
    for entry in entries():
        by_document.setdefault(entry.document or "Small models of this project", []).append(entry)
    for document, found in sorted(by_document.items()):
        columns = [column for column in COLUMNS if any(column in entry.figures for entry in found)]
        titles = ["name", "backbone", "dataset", "epochs", "parameters (M)", *(COLUMNS[c] for c in columns), "weights"]
        lines += ["", f"## {document}", "", f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
        for entry in found:
            figures = [f"{entry.figures[c]:g}" if c in entry.figures else "" for c in columns]
            link = "" if entry.weights is None else f"[file]({entry.weights})"
            parameters = f"{entry.parameters / 1e6:.1f}"
            cells = [f"`{entry.name}`", entry.backbone, entry.dataset, str(entry.epochs), parameters, *figures, link]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def export(name: str, out: str | Path, weights: str = "published") -> Path:
    """Writes weights of any layout as one safetensors file that ``sdk`` verbs take and that says what it is.

    Args:
        name: of the zoo.
        out: the ``.safetensors`` file; must not exist.
        weights: ``published`` or a checkpoint.

    Raises:
        SdkError: when the file exists, or has another ending. WeightsError: when the weights cannot be had.
    """
    from .. import models
    from ..results.weights import save_weights

    out = Path(out)
    if out.suffix != ".safetensors":
        raise SdkError(f"{out}: expected a file name that ends in .safetensors")
    if out.exists():
        raise SdkError(f"{out}: exists already")
    model, recipe = models.create(name, weights=weights), find_recipe(name)
    about = {"source": Path(weights).name}
    if weights == "published":
        about = {"source": str(recipe.weights), "document": recipe.document, "license": "Apache-2.0"}
    out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(out, model, recipe=recipe, classes=model.classes or (), category_ids=(), about=about)
    return out
