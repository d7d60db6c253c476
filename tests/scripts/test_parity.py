"""The record of agreement, made of what the check prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "parity"
LOG = """\
ok   equal_losses: 100/100 found, 100 returned; 98/100 found, 98 returned; total 7.25 for 7.25 (6.8 s)
1 passed, 0 failed
/somewhere/check.py:164: UserWarning: something else
ok   random_losses: 41/41 found, 41 returned; 32/32 found, 32 returned; no deterministic loss case (9.5 s)
ok   outputs_alone: 41/41 found, 41 returned; 32/32 found, 32 returned (9.5 s)
FAIL other_masks: 97/100 found, 100 returned, mask IoU 0.9791; 100/100 found, 100 returned, mask IoU 0.9981 (219.8 s)
FAIL other_losses: 9/9 found, 9 returned; total 7 for 8; grad of neck 2 for 1; reference terms {}; ours {} (1.0 s)
FAIL raises: RuntimeError: /home/someone/file is missing (1.0 s)
FAIL no_case: FileNotFoundError: [Errno 2] No such file or directory: '/home/someone/no_case.npz' (1.0 s)
ok   random_losses: keys equal (0.1 s)
FAIL other_masks: 1 missing ['a.b'], 0 unexpected [], 0 of another shape [] (0.1 s)
9 passed, 5 failed
"""
NOT = "not compared"
EXPECTED = {
    "equal_losses": (NOT, "equal", "equal"),
    "random_losses": ("equal", "equal", NOT),
    "outputs_alone": (NOT, "equal", NOT),
    "other_masks": (
        "differs: 1 missing ['a.b'], 0 unexpected [], 0 of another shape []",
        "differs: 97/100 found, 100 returned, mask IoU 0.9791; 100/100 found, 100 returned, mask IoU 0.9981",
        NOT,
    ),
    "other_losses": (NOT, "equal", "differs: total 7 for 8; grad of neck 2 for 1"),
    "raises": (NOT, "differs: RuntimeError", NOT),
}


def run(*arguments: object) -> str:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "check.log"
    path.write_text(LOG)
    return path


def test_a_log_becomes_a_record(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "parity.json"
    told = run("--log", log, "--out", out)
    rows = json.loads(out.read_text())["rows"]
    assert {name: tuple(row.values()) for name, row in rows.items()} == EXPECTED
    assert list(rows) == sorted(rows)
    assert "6 names; equal: state dict 1, detections 4, losses 1" in told
    assert "/home" not in out.read_text()
    before = out.read_text()
    run("--log", log, "--out", out)
    assert out.read_text() == before


def test_a_check_is_run(tmp_path: Path) -> None:
    """State dicts of the names, then outputs and losses of those that have a case; the rest of the record stays."""
    cases = tmp_path / "parity"
    (cases / "cases").mkdir(parents=True)
    (cases / "cases" / "with_case.npz").touch()
    (cases / "check.py").write_text(
        "import sys\n"
        "for name in sys.argv[2:]:\n"
        "    note = 'keys equal' if sys.argv[1] == '--keys' else '1/1 found, 1 returned; total 1 for 1'\n"
        "    print(f'ok   {name}: {note} (0.1 s)')\n"
    )
    out = tmp_path / "parity.json"
    kept = {"state dict": "equal", "detections": NOT, "losses": NOT}
    out.write_text(json.dumps({"rows": {"another": kept}}))
    run(cases, "with_case", "without_case", "--out", out)
    equal = {"state dict": "equal", "detections": "equal", "losses": "equal"}
    assert json.loads(out.read_text())["rows"] == {"another": kept, "with_case": equal, "without_case": kept}
