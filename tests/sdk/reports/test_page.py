"""Pages: escaped, in one file, and as a browser shows them."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import torch

from sdk.datasets import Shapes
from sdk.datasets.checking import check
from sdk.datasets.combining import Subset
from sdk.evaluators.base import Counts, Report, Value
from sdk.evaluators.coco import CocoEvaluator
from sdk.insight.comparison import compare_reports
from sdk.insight.review import Review, Suspect
from sdk.models.structures import Detections
from sdk.reports import page as pages
from sdk.reports.checking import check_page
from sdk.reports.evaluation import evaluation_page
from sdk.reports.page import Page, Picture, Section, write_page

HOSTILE = "<script>document.title='taken'</script>\"'&{{ 7 * 7 }}$\\frac{1}$"


class Named(Subset):
    """Shapes whose first class has a hostile name."""

    def __init__(self, count):
        super().__init__(Shapes(count), range(count))
        self.classes = (HOSTILE, *self.classes[1:])


def spoilt(dataset, seed, share=0.25):
    """Detections of every image: some objects are missed, of another class, inexact, or where nothing is."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(len(dataset)):
        sample = dataset[index]
        boxes, labels = sample.boxes.copy(), sample.labels.copy()
        wrong = rng.random(len(labels)) < share
        labels[wrong] = (labels[wrong] + 1) % len(dataset.classes)
        boxes += rng.normal(0, 2, boxes.shape)
        keep = rng.random(len(labels)) > share
        extra = np.array([[2, 2, 30, 30]], np.float32)
        boxes = np.concatenate([boxes[keep], extra]).astype(np.float32)
        scores = np.sort(rng.uniform(0.3, 1, len(boxes)))[::-1].copy()
        labels = torch.from_numpy(np.append(labels[keep], 0))
        found.append(Detections(torch.from_numpy(boxes), torch.from_numpy(scores).float(), labels))
    return found


@pytest.fixture(scope="module")
def evaluated():
    """A data set with a hostile class name, and the reports of two detectors of it."""
    dataset = Named(12)
    reports = []
    for seed in (1, 2):
        evaluator = CocoEvaluator(dataset, ("bbox",))
        evaluator.update([dataset.info(i).image_id for i in range(len(dataset))], spoilt(dataset, seed))
        reports.append(evaluator.compute())
    return dataset, reports


@pytest.fixture(scope="module")
def written(evaluated, tmp_path_factory):
    """Every kind of page of hostile names: file by name."""
    folder = tmp_path_factory.mktemp("pages")
    dataset, (a, b) = evaluated
    suspects = [Suspect(1, "box", 0.9, HOSTILE, 7, HOSTILE, (2, 2, 20, 20), (5.0, 5.0, 30.0, 30.0), None)]
    return {
        "evaluation": write_page(evaluation_page(a, HOSTILE, dataset), folder / "evaluation.html"),
        "comparison": compare_reports(a, b, resamples=50).page(folder / "comparison.html", dataset),
        "review": Review("f", suspects, notes=(HOSTILE,)).page(folder / "review.html"),
        "check": write_page(check_page(check(dataset), HOSTILE), folder / "check.html"),
    }


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("name", ["evaluation", "comparison", "review", "check"])
def test_names_are_text_and_nothing_is_fetched(written, name):
    parser = Elements()
    text = written[name].read_text()
    parser.feed(text)
    assert len(text) < 10_000_000
    assert [tag for tag, _ in parser.tags].count("script") == 1
    shown = re.sub(r"base64,[^\"]*", "", text.split("<script>")[0].split("</style>")[1])
    assert "{{ 7 * 7 }}" in html.unescape(shown)
    links = [value for _, attrs in parser.tags for key, value in attrs.items() if key in ("src", "href")]
    assert all(link.startswith(("data:", "#")) for link in links)
    anchors = {attrs["id"] for _, attrs in parser.tags if "id" in attrs}
    assert {link[1:] for link in links if link.startswith("#")} <= anchors
    images = [attrs for tag, attrs in parser.tags if tag == "img"]
    assert all(attrs["alt"] for attrs in images)
    assert len(images) >= {"evaluation": 15, "comparison": 4}.get(name, 0)


def test_examples_are_what_their_marks_say(evaluated, tmp_path):
    dataset, (report, _) = evaluated
    sections = {section.title: section for section in evaluation_page(report, "a", dataset).sections}
    examples = sections["Examples"].pictures
    errors = {picture.marks["error"] for picture in examples}
    assert errors >= {"classification", "background", "missed", "none"}
    for picture in examples:
        there, said, error = (picture.marks[name] for name in ("there", "said", "error"))
        assert (there == said) == (error in ("none", "localization", "duplicate") and there == said)
        assert (said == "background") == (error == "missed")
        assert set(picture.marks["class"]) == {there, said} - {"background"}
    worst = [float(re.search(r"F1 ([\d.]+)", picture.caption)[1]) for picture in sections["Worst images"].pictures]
    assert worst == sorted(worst)
    matrix = sections["Confusions"].matrix
    anchors = [picture.anchor for picture in examples if picture.anchor]
    linked = [cell.anchor for row in matrix.cells for cell in row if cell.anchor]
    assert sorted(anchors) == sorted(linked) == sorted(set(anchors))
    assert all(cell.count for row in matrix.cells for cell in row if cell.anchor)


def test_what_would_make_a_page_large_is_left_out_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "LARGEST", 50_000)
    rng = np.random.default_rng(0)
    pictures = [Picture.of_pixels("a", rng.integers(0, 255, (64, 64, 3)).astype(np.uint8), {}) for _ in range(40)]
    rows = [("a", "b"), *((str(i), "c") for i in range(pages.MOST_ROWS + 5))]
    page = Page("t", [], [Section("Pictures", pictures=pictures), Section("Rows", rows)])
    text = write_page(page, tmp_path / "page.html").read_text()
    kept = text.count("<img")
    assert 0 < kept < 40
    assert f"Pictures: {40 - kept} more pictures" in text
    assert "Rows: 5 more rows" in text
    assert text.count("<tr>") == pages.MOST_ROWS + 1


def test_a_report_says_its_protocol_and_every_figure(tmp_path):
    report = Report(
        "a protocol", {"bbox/AP": Value(0.25), "bbox/APs": Value(None, "no small objects")}, Counts(3, 4, 5, 6)
    )
    text = write_page(evaluation_page(report, "run"), tmp_path / "report.html").read_text()
    assert all(part in text for part in ("a protocol", "0.2500", "no small objects"))


def test_a_review_shows_crops(tmp_path):
    file = tmp_path / "a & b.png"
    cv2.imwrite(str(file), np.full((40, 60, 3), 90, np.uint8))
    suspects = [
        Suspect(1, "box", 0.9, HOSTILE, 7, "cat", (2, 2, 20, 20), (5.0, 5.0, 30.0, 30.0), str(file)),
        Suspect(2, "missing", 0.8, 1, None, "cat", (2, 2, 20, 20), "add", "not there.png"),
    ]
    text = Review("f", suspects).page(tmp_path / "page.html").read_text()
    assert text.count("<img") == 1
    assert "<script>document" not in text


ACTIONS = """
const d = f.contentDocument, w = f.contentWindow, seen = {};
seen.width = d.documentElement.scrollWidth;
for (const wide of d.querySelectorAll('main > *, section > *'))
  if (wide.getBoundingClientRect().right > w.innerWidth + 1) seen.beyond = wide.outerHTML.slice(0, 200);
for (const button of d.querySelectorAll('th button')) button.click();
seen.sorted = d.querySelectorAll('[aria-sort]').length;
seen.tables = d.querySelectorAll('table.sortable').length;
seen.pictures = d.querySelectorAll('figure').length;
seen.broken = [...d.images].filter(image => image.complete && !image.naturalWidth).length;
const link = d.querySelector('.matrix a');
if (link) {
  link.click();
  const shown = [...d.querySelectorAll('figure')].filter(one => !one.hidden).map(one => JSON.parse(one.dataset.marks));
  seen.shown = shown.filter(marks => 'there' in marks).map(marks => [marks.there, marks.said]);
  seen.wanted = [link.dataset.there, link.dataset.said];
}
document.title = JSON.stringify(seen);
"""


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["evaluation", "comparison", "review", "check"])
def test_a_browser_finds_no_fault(written, name, width, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no chromium")
    # A frame has the width that is asked for; a headless window itself cannot be narrower than 500 pixels.
    outer = tmp_path / "outer.html"
    outer.write_text(
        f'<iframe id="f" src="{written[name].as_uri()}" style="border:0;width:{width}px;height:800px"></iframe>'
        f"<script>f.onload = () => {{{ACTIONS}}}</script>"
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
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout, re.DOTALL)
    assert title, done.stdout[-500:]
    seen = json.loads(html.unescape(title[1]))
    assert seen["width"] <= width
    assert "beyond" not in seen
    assert seen["sorted"] == seen["tables"] > 0
    assert seen["broken"] == 0
    if name == "evaluation":
        assert seen["pictures"] > 15
        assert seen["shown"]
        assert all(pair == seen["wanted"] for pair in seen["shown"])
