"""Comparison: intervals against resamples that were really made, and what two reports must have in common."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from oracles import dataset_of
from scipy.stats import norm
from test_analysis import random_scene

import sdk
from sdk import cli
from sdk.errors import SdkError
from sdk.evaluators.coco import Coco, CocoEvaluator
from sdk.insight.comparison import chance, compare_reports, draws, holm, interval


def report_of(tmp_path, content, results, protocol=None):
    (tmp_path / "results.json").write_text(json.dumps(results))
    evaluator = CocoEvaluator(dataset_of(content), ("bbox",), protocol)
    evaluator.update_from_json(tmp_path / "results.json")
    return evaluator.compute()


def folder_of(tmp_path, content):
    """A folder with the annotations alone: scoring results files needs no image."""
    for entry in content["images"]:
        entry["file_name"] = f"{entry['id']}.jpg"
    folder = tmp_path / "data"
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations/instances_val.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def pair(tmp_path):
    """Two reports on the same images: b misses a third of what a says."""
    content, results = random_scene(6, 16)
    return report_of(tmp_path, content, results), report_of(tmp_path, content, results[::3] + results[1::3])


def test_rows_are_those_of_resamples_made_by_hand(pair):
    comparison = compare_reports(*pair, resamples=50, seed=3)
    row = comparison["bbox/AP50"]
    assert (row.a, row.b) == pytest.approx((pair[0]["bbox/AP50"], pair[1]["bbox/AP50"]))
    assert row.difference == pytest.approx(row.b - row.a)
    weights = np.concatenate(list(draws(24, 50, 3)()), axis=1)
    assert (weights.sum(0) == 24).all()
    assert weights.max() > 2
    differences = [
        np.subtract(
            *(r.evaluator.weighable().values(lambda w=w: [w[:, None]], ["AP50"])["AP50"][0][0] for r in pair[::-1])
        )
        for w in weights.T
    ]
    assert (row.low, row.high) == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])))
    by_class = [r for r in comparison.rows if r.class_name == "class 2" and r.figure == "bbox/APs"]
    assert [r.size for r in by_class] == ["small"]
    assert by_class[0].a == pytest.approx(pair[0].per_class["class 2"]["bbox/APs"].value)


def test_the_same_twice_differs_in_nothing(pair):
    comparison = compare_reports(pair[0], pair[0], resamples=20)
    assert all(row.difference == 0 and not row.significant for row in comparison.rows)
    assert comparison.better == comparison.worse == ()


def test_a_clear_difference_is_found_and_explained(tmp_path):
    content, results = random_scene(6, 16)
    good = [
        {"image_id": e["image_id"], "category_id": e["category_id"], "bbox": e["bbox"], "score": 0.9}
        for e in content["annotations"]
        if not e["iscrowd"]
    ]
    comparison = compare_reports(
        report_of(tmp_path, content, results), report_of(tmp_path, content, good), resamples=100
    )
    row = comparison["bbox/AP"]
    assert row.significant
    assert 0 < row.low < row.difference < row.high
    assert comparison.better
    assert all(change.b > change.a for change in comparison.better)
    assert any("more object" in change.why for change in comparison.better)
    assert comparison.rows[0].figure == "bbox/AP"
    assert "not by chance" in str(comparison)
    assert "<table>" in comparison._repr_html_()
    assert repr(comparison).startswith("Comparison(a -> b: bbox/AP +")
    assert json.loads(json.dumps(comparison.to_dict()))["rows"][0]["figure"] == "bbox/AP"
    assert set(comparison.to_pandas().columns) == {
        "figure", "class_name", "size", "slice", "a", "b", "difference", "low", "high", "significant",
    }  # fmt: skip


def test_slices(tmp_path):
    content, results = random_scene(6, 16)
    dataset = sdk.datasets.Coco(folder_of(tmp_path, content))
    (tmp_path / "results.json").write_text(json.dumps(results))
    night = [i % 2 == 0 for i in range(24)]
    slices = {"night": night, "half": lambda info: "first" if info.image_id <= 12 else None}
    protocol = Coco(ious=(0.5,))
    report = sdk.evaluate(dataset, tmp_path / "results.json", protocol=protocol, slices=slices)
    assert list(report.slices) == ["night", "half"]
    assert list(report.slices["half"]) == ["first"]
    ids = {image["id"] for image, dark in zip(content["images"], night) if dark}
    part = {
        **content,
        "images": [image for image in content["images"] if image["id"] in ids],
        "annotations": [e for e in content["annotations"] if e["image_id"] in ids],
    }
    own = report_of(tmp_path, part, [e for e in results if e["image_id"] in ids], protocol)
    for name, value in own.metrics.items():
        found = report.slices["night"]["True"][name].value
        assert found == pytest.approx(value.value, abs=1e-10), name
    assert "night" in str(report)
    assert report.to_dict()["slices"]["night"]["True"]["bbox/AP"] == pytest.approx(own["bbox/AP"])
    (tmp_path / "results.json").write_text(json.dumps(results))
    rows = sdk.compare(
        report, tmp_path / "results.json", dataset=dataset, protocol=protocol, slices=slices, resamples=10
    )
    assert {row.slice for row in rows.rows} == {None, "night=False", "night=True", "half=first"}


def test_what_cannot_be_compared(tmp_path, pair):
    content, results = random_scene(6, 16)
    a = pair[0]
    with pytest.raises(SdkError, match="protocols differ"):
        compare_reports(a, report_of(tmp_path, content, results, Coco(ious=(0.5,))))
    kept = [e for e in content["annotations"] if e["image_id"] > 1]
    fewer = {**content, "images": content["images"][1:], "annotations": kept}
    with pytest.raises(SdkError, match=r"images differ: 1 are only in a \(such as \[1\]\)"):
        compare_reports(a, report_of(tmp_path, fewer, [e for e in results if e["image_id"] > 1]))
    renamed = {**content, "categories": [{**c, "name": c["name"].upper()} for c in content["categories"]]}
    with pytest.raises(SdkError, match=r"classes differ: only a has \['class 1'"):
        compare_reports(a, report_of(tmp_path, renamed, results))
    moved = {**content, "annotations": [{**e, "bbox": [0, 0, 5, 5]} for e in content["annotations"]]}
    with pytest.raises(SdkError, match=r"annotations differ \(in their boxes\)"):
        compare_reports(a, report_of(tmp_path, moved, results))
    with pytest.raises(SdkError, match="holds no matching"):
        compare_reports(a, replace(a, evaluator=None))
    with pytest.raises(SdkError, match="say on which data"):
        sdk.compare(a, "results.json")


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005]), 0.05).tolist() == [True, False, False, True]
    assert holm(np.array([0.2]), 0.05).tolist() == [False]
    assert holm(np.zeros(0), 0.05).tolist() == []


def test_chance_and_interval():
    sample = np.random.default_rng(0).normal(0.2, 0.1, 4000)
    assert chance(0.2, sample) == pytest.approx(2 * norm.sf(0.2 / sample.std(ddof=1)))
    low, high = interval(sample, 0.9)
    assert (low, high) == pytest.approx((0.2 - 0.1645, 0.2 + 0.1645), abs=0.01)
    missing = np.where(np.arange(4000) % 2, sample, np.nan)
    assert interval(missing, 0.9) == (None, None)
    assert chance(0.2, missing) == 1


def test_command_line(tmp_path, capsys):
    content, results = random_scene(6, 16)
    folder = folder_of(tmp_path, content)
    for name, entries in (("a", results), ("b", results[::2])):
        (tmp_path / f"{name}.json").write_text(json.dumps(entries))
    common = ["--dataset", f"coco:{folder}", "--resamples", "20"]
    a, b = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    assert cli.main(["compare", a, b, *common]) == 0
    assert "bbox/AP50" in capsys.readouterr().out
    assert cli.main(["compare", a, b, *common, "--fail-if-worse", "bbox/AP", "--by", "0.01"]) == 2
    assert "bbox/AP is" in capsys.readouterr().err
    assert cli.main(["compare", b, a, *common, "--fail-if-worse", "bbox/AP"]) == 0
    assert cli.main(["compare", a, b, *common, "--fail-if-worse", "bbox/mAP"]) == 1
    assert "expected one of bbox/AP" in capsys.readouterr().err
