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
