"""Pages: escaped, in one file, and as a browser shows them."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from sdk.evaluators.base import Counts, Report, Value
from sdk.insight.review import Review, Suspect
from sdk.reports.page import Page, Picture, Section, report_page, write_page

HOSTILE = "<script>document.title='taken'</script>\"'&{{ 7 * 7 }}"


@pytest.fixture
def page(tmp_path):
    """A page of hostile names, wide tables and long words."""
    rng = np.random.default_rng(0)
    names = [HOSTILE, "x" * 200, *(f"class {i}" for i in range(8))]
    pictures = [
        Picture.of_pixels(name, rng.integers(0, 255, (64, 64, 3)).astype(np.uint8), {"class": name, "score": i / 10})
        for i, name in enumerate(names)
    ]
    table = [[f"column {i} {HOSTILE}" for i in range(20)], *([f"{name} {i}" for i in range(20)] for name in names)]
    sections = [Section(HOSTILE, table), Section("Pictures", pictures=pictures), Section("y" * 150, table)]
    return write_page(Page(HOSTILE, [HOSTILE], sections, [HOSTILE, "z" * 300]), tmp_path / "page.html")


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_names_are_text_and_nothing_is_fetched(page):
    parser = Elements()
    text = page.read_text()
    parser.feed(text)
    assert [tag for tag, _ in parser.tags].count("script") == 1
    assert "49" not in re.sub(r"base64,[^\"]*", "", text.split("<script>")[0].split("</style>")[1])
    links = [value for _, attrs in parser.tags for name, value in attrs.items() if name in ("src", "href")]
    assert all(link.startswith(("data:", "#")) for link in links)
    images = [attrs for tag, attrs in parser.tags if tag == "img"]
    assert len(images) == 10
    assert all(attrs["alt"] for attrs in images)


def test_a_report_says_its_protocol_and_every_figure(tmp_path):
    report = Report(
        "a protocol", {"bbox/AP": Value(0.25), "bbox/APs": Value(None, "no small objects")}, Counts(3, 4, 5, 6)
    )
    text = write_page(report_page(report, "run"), tmp_path / "report.html").read_text()
    assert all(part in text for part in ("a protocol", "0.2500", "no small objects"))


def test_a_review_shows_crops(tmp_path):
    import cv2

    file = tmp_path / "a & b.png"
    cv2.imwrite(str(file), np.full((40, 60, 3), 90, np.uint8))
    suspects = [
        Suspect(1, "box", 0.9, HOSTILE, 7, "cat", (2, 2, 20, 20), (5.0, 5.0, 30.0, 30.0), str(file)),
        Suspect(2, "missing", 0.8, 1, None, "cat", (2, 2, 20, 20), "add", "not there.png"),
    ]
    text = Review("f", suspects).page(tmp_path / "page.html").read_text()
    assert text.count("<img") == 1
    assert "<script>document" not in text


@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_finds_no_fault(page, width, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no chromium")
    # A frame has the width that is asked for; a headless window itself cannot be narrower than 500 pixels.
    outer = tmp_path / "outer.html"
    outer.write_text(
        f'<iframe id="f" src="page.html" style="border:0;width:{width}px;height:800px"></iframe><script>'
        "f.onload = () => { const d = f.contentDocument; const buttons = d.querySelectorAll('th button');"
        "buttons[0].click(); const input = d.querySelector('.filters input'); input.value = 0.55;"
        "input.dispatchEvent(new Event('input'));"
        "document.title = [d.documentElement.scrollWidth, buttons.length,"
        "d.querySelectorAll('figure:not([hidden])').length, d.querySelector('[aria-sort]') !== null].join(' ');"
        "}</script>"
    )
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--allow-file-access-from-files", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'user'}",
            f"--window-size={max(width, 500)},900", "--virtual-time-budget=3000", "--dump-dom", outer.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    found = re.search(r"<title>(\d+) (\d+) (\d+) (\w+)</title>", done.stdout)
    assert found, done.stdout[-500:]
    assert int(found[1]) <= width
    assert found.groups()[1:] == ("40", "4", "true")
