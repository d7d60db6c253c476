"""The plugin as FiftyOne finds it, and detectors as FiftyOne models."""

from __future__ import annotations

import pytest

import sdk
from sdk.datasets import Shapes, to_fiftyone

pytestmark = pytest.mark.fiftyone


def run(fo, name: str, dataset, **params):
    """An operator executed the way the App does it."""
    import fiftyone.operators as foo

    result = foo.execute_operator(f"sdk/{name}", {"dataset": dataset}, params=params)
    assert result.error is None, result.error
    return result.result


@pytest.fixture
def plugin(fo, tmp_path, monkeypatch):
    from sdk.fiftyone.install import install

    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path))
    return install()


def test_fiftyone_finds_the_operators(fo, plugin):
    import fiftyone.operators as foo
    import fiftyone.plugins as fop

    assert "sdk" in fop.list_enabled_plugins() or "sdk" in [p.name for p in fop.list_plugins()]
    names = {operator.name for operator in foo.list_operators() if operator.uri.startswith("sdk/")}
    assert names == {"evaluate_run", "compare_models", "open_failures", "export_fixes"}


def test_evaluating_comparing_and_exporting(fo, plugin, tiny, tmp_path):
    from sdk.fiftyone.operators import compared, worse_images

    shapes = Shapes(3, size=(64, 64), seed=31)
    made = to_fiftyone(shapes, "operated")
    for field, seed in (("one", 0), ("two", 1)):
        sdk.explore(shapes, {field: tiny(seed=seed)}, split="train", name="operated", workers=0, launch=False)
    figures = run(fo, "evaluate_run", made, field="one", protocol="coco", eval_key="mine")
    made.reload()
    assert figures["bbox/AP"] == pytest.approx(made.load_evaluation_results("eval_one").mAP(), abs=1e-9)
    assert "bbox/AP" in compared(made, "eval_one", "eval_two")
    assert len(worse_images(made, "eval_one", "mine")) == 0
    run(fo, "export_fixes", made, path=str(tmp_path / "fixed.json"))
    assert (tmp_path / "fixed.json").is_file()


def test_apply_model(fo, tiny):
    from sdk.fiftyone.model import FiftyOneModel

    shapes = Shapes(2, size=(64, 64), seed=32)
    made = to_fiftyone(shapes, "applied")
    detector = tiny()
    detector.classes = shapes.classes
    made.apply_model(FiftyOneModel(detector), "applied")
    for sample in made:
        wanted = sdk.predict(sample.filepath, detector)
        assert [label.label for label in sample.applied.detections] == wanted.names
        scores = [label.confidence for label in sample.applied.detections]
        assert scores == pytest.approx(wanted.scores.tolist())
