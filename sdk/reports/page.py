"""Reports as one HTML file each: pictures are inside of it, and it needs no network and no script to be read."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..evaluators.base import Report, as_text, class_rows, error_rows, slice_rows
from ..results.files import write_bytes


def data_address(image: np.ndarray) -> str:
    """An (H, W, 3) uint8 RGB image as a data address that holds it as JPEG."""
    _, content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return f"data:image/jpeg;base64,{base64.b64encode(content.tobytes()).decode()}"


@dataclass(frozen=True)
class Picture:
    """source: a data address. marks: what it can be filtered by in the page, such as its class or its score; numbers
    are filtered by the least, texts by the same."""

    caption: str
    source: str
    marks: dict[str, str | float] = field(default_factory=dict)

    @staticmethod
    def of_file(caption: str, path: Path) -> Picture:
        """A PNG or JPEG file; its bytes go into the page as they are."""
        kind = "png" if path.suffix == ".png" else "jpeg"
        return Picture(caption, f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}")

    @staticmethod
    def of_pixels(caption: str, image: np.ndarray, marks: dict[str, str | float]) -> Picture:
        """An (H, W, 3) uint8 RGB image, kept as a JPEG of some kilobytes."""
        return Picture(caption, data_address(image), marks)


@dataclass(frozen=True)
class Section:
    """A heading with a table (the head first), pictures, or both. width: of a picture at least, in rem."""

    title: str
    table: Sequence[Sequence[str]] = ()
    pictures: Sequence[Picture] = ()
    width: float = 13


@dataclass(frozen=True)
class Page:
    """What a page says. lead: lines below the title. notes: what a reader must know."""

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    notes: Sequence[str] = ()


def write_page(page: Page, path: Path) -> Path:
    """Writes a page. Names of classes and files are anyone's text: the template escapes all that it is given."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, templates.get_template("page.html").render(page=page).encode("utf-8", "replace"))
    return path


def report_page(report: Report, title: str, pictures: Sequence[tuple[str, Path]] = ()) -> Page:
    """The page of an evaluation. pictures: captions with PNG or JPEG files."""
    counts = report.counts
    lead = (
        report.protocol,
        f"{counts.images} images, {counts.ground_truths} ground truths ({counts.ignored} more ignored), "
        f"{counts.detections} detections",
    )
    sections = [Section("Figures", [("figure", "value"), *((n, str(v)) for n, v in report.metrics.items())])]
    if report.per_class:
        sections.append(Section("Classes", class_rows(report)))
    if report.errors:
        sections.append(Section("What errors cost", error_rows(report)))
    for attribute, values in report.slices.items():
        sections.append(Section(f"By {attribute}", slice_rows(attribute, values)))
    if pictures:
        sections.append(Section("Pictures", pictures=[Picture.of_file(*one) for one in pictures], width=30))
    return Page(title, lead, sections, report.notes)


def write_report(report: Report, folder: Path, title: str, pictures: Sequence[tuple[str, Path]] = ()) -> Path:
    """``report.txt``, ``report.json`` and ``report.html`` with the pictures (caption, file) in it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "report.txt", (as_text(report) + "\n").encode())
    write_bytes(folder / "report.json", (json.dumps(report.to_dict(), indent=2) + "\n").encode())
    return write_page(report_page(report, title, pictures), folder / "report.html")
