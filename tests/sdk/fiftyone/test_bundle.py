"""Bundles: written without a database, opened with and without FiftyOne; and what goes back to files."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

import sdk
from sdk.datasets import Coco, Shapes, ignoring, to_fiftyone
from sdk.datasets.index import columns_of
from sdk.errors import SdkError
from sdk.fiftyone.bundle import open_bundle, save_bundle
from sdk.fiftyone.exporting import as_coco, export_coco, export_ignore


@pytest.fixture(scope="module")
def bundle(coco, shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    root = shared / "data" / "coco_val2014_100"
    save_bundle(coco, root / "results" / "instances_val2014_fakebbox100_results.json", folder)
    return folder


def test_a_bundle_has_the_same_figures(bundle):
    dataset, predictions = open_bundle(bundle)
    report = sdk.evaluate(dataset, predictions)
    # By pycocotools, given with the data.
    assert report["bbox/AP"] == pytest.approx(0.5045806987249628, abs=1e-9)
    assert json.loads((bundle / "bundle.json").read_text())["report"]["metrics"]["bbox/AP"] == pytest.approx(
        0.5045806987249628, abs=1e-12
    )


def test_the_report_stands_alone(bundle):
    page = (bundle / "report.html").read_text()
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert len(sources) >= 5
    assert all(source.startswith("data:image/") for source in sources)
    assert "http" not in re.sub(r'src="[^"]+"', "", page)


def test_every_object_is_in_the_table(bundle, coco):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    table = parquet.read_table(bundle / "matches.parquet").to_pydict()
    predictions = json.loads((bundle / "predictions.json").read_text())
    names = {a["id"]: a["category_id"] for a in json.loads((bundle / "ground_truth.json").read_text())["annotations"]}
    assert len({p for p in table["prediction"] if p is not None}) == len(predictions)
    for prediction, annotation, mark in zip(table["prediction"], table["annotation_id"], table["mark"]):
        if mark == "tp":
            assert predictions[prediction]["category_id"] == names[annotation]
    counted = coco.annotations.annotation_ids[~coco.annotations.ignore].tolist()
    hit = [a for a, mark in zip(table["annotation_id"], table["mark"]) if mark in ("tp", "fn")]
    assert sorted(hit) == sorted(counted)


def test_bundles_need_no_fiftyone(tmp_path):
    code = (
        "import sys; sys.modules['fiftyone'] = None\n"
        "from sdk.datasets import Shapes\n"
        "from sdk.fiftyone.bundle import save_bundle\n"
        "from sdk.models.structures import Detections\n"
        "import torch\n"
        "shapes = Shapes(2, size=(64, 64), split='train')\n"
        "one = lambda s: Detections(torch.tensor(s.boxes), torch.ones(len(s.boxes)), torch.tensor(s.labels))\n"
        f"save_bundle(shapes, [one(shapes[i]) for i in range(2)], {str(tmp_path)!r}, split='train')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").is_file()


def test_what_is_no_bundle_is_said(tmp_path):
    with pytest.raises(SdkError, match=re.escape("bundle.json")):
        open_bundle(tmp_path)


def test_the_coco_file_reads_as_the_dataset(coco, tmp_path):
    file = tmp_path / "again.json"
    file.write_text(json.dumps(as_coco(coco)))
    again = Coco(annotations=file, images="/")
    assert again.annotations.stated_boxes.tolist() == coco.annotations.stated_boxes.tolist()
    assert again.annotations.areas.tolist() == coco.annotations.areas.tolist()
    assert again.annotations.crowd.tolist() == coco.annotations.crowd.tolist()
    before, after = coco.annotations.segments.compact(), again.annotations.segments.compact()
    assert after.coordinates.tolist() == before.coordinates.tolist()
    assert after.rle_bytes.tobytes() == before.rle_bytes.tobytes()


@pytest.mark.fiftyone
def test_fixes_are_exported_with_a_list(fo, tmp_path):
    shapes = Shapes(4, size=(48, 64), seed=21)
    made = to_fiftyone(shapes, "fixes")
    one, two = list(made)[:2]
    one.ground_truth.detections[0].label = shapes.classes[(shapes[0].labels[0] + 1) % len(shapes.classes)]
    one.save()
    two.ground_truth.detections[0].bounding_box = [0.1, 0.1, 0.2, 0.2]
    two.ground_truth.detections.append(fo.Detection(label=shapes.classes[0], bounding_box=[0.5, 0.5, 0.25, 0.25]))
    two.save()
    changes = export_coco(made, tmp_path / "fixed.json", original=shapes)
    assert sorted(change["change"] for change in changes) == ["added", "moved", "relabelled"]
    assert json.loads((tmp_path / "fixed.changes.json").read_text()) == changes
    with pytest.raises(SdkError, match="exists"):
        export_coco(made, tmp_path / "fixed.json")
    one.tags.append("ignore")
    one.save()
    two.ground_truth.detections[0].tags.append("ignore")
    two.save()
    export_ignore(made, tmp_path / "ignore.json")
    two.ground_truth.detections[-1].tags.append("ignore")
    two.save()
    export_ignore(made, tmp_path / "all.json")
    assert (tmp_path / "all.json").read_text() == (tmp_path / "ignore.json").read_text()
    wrong = two.ground_truth.detections[0].annotation_id
    fewer = ignoring(shapes, tmp_path / "ignore.json")
    assert [fewer[i].image_id for i in range(len(fewer))] == [1, 2, 3]
    assert columns_of(fewer).annotation_ids[columns_of(fewer).ignore].tolist() == [wrong]
