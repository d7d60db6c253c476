"""All topics one after another: ``python -m benchmarks [TOPIC ...] [--quick] [--out FOLDER]``.

Each writes ``FOLDER/TOPIC.json``; ``python -m benchmarks.page FOLDER`` makes the page in the documentation from them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

TOPICS = ("ops", "transforms", "loading", "inference", "export", "training", "explore")
"""Files of this folder; each runs in a process of its own, so that none warms up or fills the memory of another."""


def main() -> int:
    """Runs the topics; 1 where one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=f"of {', '.join(TOPICS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small inputs and one turn: whether it runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), metavar="FOLDER")
    options = parser.parse_args()
    if unknown := set(options.topics) - set(TOPICS):
        parser.error(f"{', '.join(sorted(unknown))}: expected some of {', '.join(TOPICS)}")
    failed = []
    for topic in options.topics or TOPICS:
        print(f"\n{topic}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{topic}", "--out", str(options.out / f"{topic}.json")]
        if subprocess.run(command + ["--quick"] * options.quick).returncode:
            failed.append(topic)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
