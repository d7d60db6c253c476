"""``python -m sdk.fiftyone.install``: makes our operators known to FiftyOne."""

from __future__ import annotations

from pathlib import Path

from ..results.files import write_bytes
from ..version import __version__
from .starting import start

NAME = "sdk"


def install() -> Path:
    """Writes the plugin into FiftyOne's plugin folder, over an older one of ours; gives its folder."""
    fo = start()
    from .operators import OPERATORS

    folder = Path(fo.config.plugins_dir) / NAME
    folder.mkdir(parents=True, exist_ok=True)
    names = "\n".join(f"  - {operator().config.name}" for operator in OPERATORS)
    about = f"name: {NAME}\nversion: {__version__}\nfiftyone:\n  version: '*'\noperators:\n{names}\n"
    write_bytes(folder / "fiftyone.yml", about.encode())
    code = (
        "from sdk.fiftyone.operators import OPERATORS\n\n\n"
        "def register(plugin):\n    for operator in OPERATORS:\n        plugin.register(operator)\n"
    )
    write_bytes(folder / "__init__.py", code.encode())
    return folder


if __name__ == "__main__":
    print(f"the plugin is in {install()}")
