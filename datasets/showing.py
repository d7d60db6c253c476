"""How a dataset shows itself: in one line, as a table in a notebook, as plain values and as rows."""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from .index import Annotations, columns_of


class Shown:
    """Gives a dataset ``repr``, a table in notebooks, ``to_dict`` and ``to_pandas``."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values: how many images and annotations, of each class its objects that count, the images that show
        it and its ignored objects, the splits, and the fingerprint."""
        dataset: Any = self
        columns = columns_of(dataset)
        labels, images, ignore = columns.labels, columns.image_of(), columns.ignore
        classes = {}
        for label, name in enumerate(dataset.classes):
            own = labels == label
            classes[str(name)] = {
                "objects": int((own & ~ignore).sum()),
                "images": len(np.unique(images[own & ~ignore])),
                "ignored": int((own & ignore).sum()),
            }
        return {
            "kind": type(self).__name__,
            "images": len(dataset),
            "annotations": len(columns),
            "classes": classes,
            "splits": list(getattr(dataset, "splits", None) or ()),
            "fingerprint": dataset.fingerprint,
        }

    def to_pandas(self) -> Any:
        """A row an annotation: ``image_id``, ``file``, ``annotation_id``, ``class``, ``x1``, ``y1``, ``x2``, ``y2`` in
        pixels, ``area``, ``ignore``; needs pandas."""
        import pandas

        dataset: Any = self
        columns, names = columns_of(dataset), np.array([str(name) for name in dataset.classes], object)
        images = columns.image_of()
        files = [columns.image_files[i] for i in range(len(columns.image_ids))]
        table = {
            "image_id": columns.image_ids[images],
            "file": np.array(files, object)[images],
            "annotation_id": columns.annotation_ids,
            "class": names[columns.labels],
            **{name: columns.boxes[:, side] for side, name in enumerate(("x1", "y1", "x2", "y2"))},
            "area": columns.areas,
            "ignore": columns.ignore,
        }
        return pandas.DataFrame(table)

    def __repr__(self) -> str:
        dataset: Any = self
        own = getattr(dataset, "annotations", None)
        objects = f", {len(own):,} annotations" if isinstance(own, Annotations) else ""
        splits = getattr(dataset, "splits", None)
        others = f", splits {', '.join(splits)}" if splits else ""
        return f"{type(self).__name__}({len(dataset):,} images{objects}, {len(dataset.classes)} classes{others})"

    def _repr_html_(self) -> str:
        rows = [("class", "objects", "images", "ignored")]
        rows += [
            (name, *(f"{counts[key]:,}" for key in ("objects", "images", "ignored")))
            for name, counts in self.to_dict()["classes"].items()
        ]
        return f"<p>{html.escape(repr(self))}</p>{html_table(rows)}"


def html_table(rows: Any) -> str:
    """A table as HTML; the first row is the head. Texts are escaped."""
    lines = []
    for number, row in enumerate(rows):
        tag = "td" if number else "th"
        lines.append("<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in row) + "</tr>")
    return f"<table>{''.join(lines)}</table>"
