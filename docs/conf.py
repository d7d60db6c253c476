"""How Sphinx makes the site: ``scripts/docs`` builds it, offline and with warnings as errors."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
# The checkout itself, so that the pages are those of the code beside them, installed or not.
sys.path.insert(0, str(ROOT))

from sdk.version import __version__  # noqa: E402

project = "Detection SDK"
copyright = "the authors of Detection SDK"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "conftest.py"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
# Sections can be linked by their titles: errors.md#calibration.
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# What a dataclass is made of stands in its own docstring.
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_custom_sections = [
    (f"{group} options", "params_style")
    for group in ("Data", "Model", "Optimization", "Scoring", "Hardware", "Saving", "Source")
]

html_theme = "furo"
html_title = f"Detection SDK {release}"
html_static_path: list[str] = []
copybutton_exclude = ".linenos, .gp, .go"


def write_llms_text(app: Sphinx, exception: Exception | None) -> None:
    """Writes ``llms.txt``: every page by title and first sentence, and the pages as they are written (llmstxt.org)."""
    if exception is not None or app.builder.name != "html":
        return
    lines = ["# Detection SDK", "", "> Object detection and instance segmentation, centred on your dataset.", ""]
    for name in sorted(app.env.found_docs):
        title = app.env.titles[name].astext()
        lines.append(f"- [{title}](_sources/{name}.md.txt)")
    (Path(app.outdir) / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("build-finished", write_llms_text)
