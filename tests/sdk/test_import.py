"""What ``import sdk`` costs, and that a verb stays a function."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "fiftyone", "albumentations", "lvis", "cityscapesscripts", "lightning_fabric", "instaboost")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_quick_and_light():
    code = (
        "import sys, time; t = time.perf_counter(); import sdk; t = time.perf_counter() - t; "
        f"print(t < 2, [name for name in {HEAVY} if name in sys.modules])"
    )
    assert run(code) == "True []"


def test_fit_imports_no_optional_package():
    optional = ("fiftyone", "albumentations", "lvis", "cityscapesscripts", "instaboost")
    assert run(f"import sys, sdk; sdk.fit; print([name for name in {optional} if name in sys.modules])") == "[]"


MEASURED = """
import contextlib, io, sys
before = set(sys.modules)
from sdk.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(sys.argv[1:])
new = set(sys.modules) - before
print(len(new), [name for name in ("numpy", "torch", "cv2", "pycocotools") if name in new])
"""


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["zoo", "--help"], ["zoo", "gfl*"]])
def test_help_and_lists_import_next_to_nothing(arguments):
    """Modules are counted and not seconds, for these depend on what else the machine does."""
    done = subprocess.run([sys.executable, "-c", MEASURED, *arguments], capture_output=True, text=True, check=True)
    modules, _, heavy = done.stdout.strip().partition(" ")
    assert heavy == "[]"
    assert int(modules) < 200


@pytest.mark.parametrize(
    "code",
    [
        "import sdk.verbs.fit; import sdk.verbs.evaluate; import sdk.verbs.predict",
        "from sdk.verbs.fit import fit; import sdk; import importlib; importlib.reload(sdk)",
    ],
)
def test_verbs_are_functions_whatever_was_imported(code):
    assert run(f"{code}\nimport sdk\nprint(sdk.fit.__name__, sdk.evaluate.__name__, sdk.predict.__name__)") == (
        "fit evaluate predict"
    )


def test_unknown_attribute():
    import sdk

    with pytest.raises(AttributeError, match="no attribute 'train'"):
        sdk.train  # noqa: B018
    assert {"fit", "datasets", "models"} <= set(dir(sdk))
