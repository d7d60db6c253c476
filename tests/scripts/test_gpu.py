"""What a machine without a GPU can show of ``scripts/gpu``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "gpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so(tmp_path):
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--only", "tests", "cases", "timings"]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["environment"]["torch"] == torch.__version__
    assert summary["steps"].keys() == {"tests", "cases", "timings"}
    assert all(step == {"status": "skipped", "why": "no CUDA device"} for step in summary["steps"].values())
