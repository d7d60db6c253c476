"""Pages of one HTML file each: pictures are inside of it, and it needs no network and no script to be read."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..results.files import write_bytes

LARGEST = 8_000_000
"""Bytes of pictures in one page, so that it stays below 10 MB; those after them are left out, which is said."""
MOST_ROWS = 1000
"""Rows of one table in a page."""


def data_address(image: np.ndarray) -> str:
    """An (H, W, 3) uint8 RGB image as a data address that holds it as JPEG."""
    _, content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return _address("jpeg", content.tobytes())


def _address(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True)
class Picture:
    """source: a data address. marks: what it can be filtered by in the page, such as its class or its score; numbers
    are filtered by the least, texts by the same, lists by one of them. anchor: what links in the page lead to."""

    caption: str
    source: str
    marks: Mapping[str, str | float | list[str]] = field(default_factory=dict)
    anchor: str = ""

    @staticmethod
    def of_file(caption: str, path: Path) -> Picture:
        """A PNG or JPEG file; its bytes go into the page as they are."""
        return Picture(caption, _address("png" if path.suffix == ".png" else "jpeg", path.read_bytes()))

    @staticmethod
    def of_drawing(caption: str, content: bytes) -> Picture:
        """An SVG file."""
        return Picture(caption, _address("svg+xml", content))

    @staticmethod
    def of_pixels(
        caption: str, image: np.ndarray, marks: Mapping[str, str | float | list[str]], anchor: str = ""
    ) -> Picture:
        """An (H, W, 3) uint8 RGB image, kept as a JPEG of some kilobytes."""
        return Picture(caption, data_address(image), marks, anchor)


@dataclass(frozen=True)
class Cell:
    """Of a matrix. count: what stands in it. share: of its row, 0..1. anchor: of the first picture of it, empty where
    the page has none."""

    count: int
    share: float
    anchor: str = ""


@dataclass(frozen=True)
class Matrix:
    """Counts by what is there (rows) and what was said (columns); a cell leads to its pictures."""

    names: Sequence[str]
    cells: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Section:
    """A heading with text, a table (the head first), a matrix, pictures, or several of these. width: of a picture at
    least, in rem."""

    title: str
    table: Sequence[Sequence[str]] = ()
    pictures: Sequence[Picture] = ()
    width: float = 13
    text: str = ""
    matrix: Matrix | None = None


@dataclass(frozen=True)
class Page:
    """What a page says. lead: lines below the title. notes: what a reader must know."""

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    notes: Sequence[str] = ()


def write_page(page: Page, path: Path) -> Path:
    """Writes a page. Names of classes and files are anyone's text: the template escapes all that it is given.

    It stays below 10 MB: what is beyond ``LARGEST`` and ``MOST_ROWS`` is left out, and the page says how much.
    """
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    # Filters stand in the order in which marks were given.
    templates.policies["json.dumps_kwargs"] = {"sort_keys": False}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = templates.get_template("page.html").render(page=_limited(page))
    write_bytes(path, content.encode("utf-8", "replace"))
    return path


def _limited(page: Page) -> Page:
    left, sections, notes = LARGEST, [], list(page.notes)
    for section in page.sections:
        kept = []
        for picture in section.pictures:
            left -= len(picture.source)
            if left < 0:
                break
            kept.append(picture)
        if len(kept) < len(section.pictures):
            notes.append(
                f"{section.title}: {len(section.pictures) - len(kept)} more pictures would make this file large"
            )
        # The head is the first row.
        more = len(section.table) - 1 - MOST_ROWS
        if more > 0:
            notes.append(f"{section.title}: {more} more rows are not in this page")
        sections.append(replace(section, pictures=kept, table=section.table[: MOST_ROWS + 1]))
    return replace(page, sections=sections, notes=notes)
