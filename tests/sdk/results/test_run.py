"""What a run tells of itself."""

from __future__ import annotations

import pytest

from sdk.results.run import Run


def test_a_run_tells_of_itself(tmp_path):
    pytest.importorskip("pandas")
    (tmp_path / "manifest.json").write_text(
        '{"model": {"name": "a"}, "classes": ["<b>"], "category_ids": [1], "options": {}}'
    )
    (tmp_path / "best.safetensors").write_bytes(b"")
    lines = ['{"step": 1, "loss": 2.0}', '{"step": 2, "metrics": {"bbox/AP": 0.25}}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    run = Run(tmp_path)
    assert "bbox/AP" in str(run)
    assert "0.2500" in str(run)
    assert "<b>" not in run._repr_html_()
    assert run.to_dict()["history"] == run.history
    assert run.to_pandas()["metrics.bbox/AP"].tolist()[-1] == 0.25
