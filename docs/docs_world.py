"""The small world that the pages' code blocks run in: what they call ``data/mine``, ``runs/a`` and so on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import sdk
from sdk.datasets import Shapes

# The drawn shapes under names that pages use.
NAMES = {"circle": "person", "square": "car", "triangle": "dog", "cross": "bicycle"}


def make_world(root: Path) -> Path:
    """Fills a folder and returns it.

    ``data/coco`` (COCO) and ``data/mine`` (YOLO) hold the same images with ``train`` and ``val``; ``runs/a`` and
    ``runs/b`` are trainings of other seeds; ``street.jpg`` is an image, ``photos`` and ``million`` are folders of
    images.
    """
    coco = root / "data" / "coco"
    sdk.datasets.save(Shapes(24, size=(96, 128), max_objects=3), coco, "coco")
    for path in (coco / "annotations").glob("*.json"):
        content = json.loads(path.read_text())
        for category in content["categories"]:
            category["name"] = NAMES[category["name"]]
        path.write_text(json.dumps(content))
    sdk.datasets.save(sdk.open(coco), root / "data" / "mine", "yolo", tell=lambda _: None)
    for seed, name in enumerate("ab"):
        sdk.fit(coco, "retinanet_tiny_shapes", epochs=1, seed=seed, workers=0, out=root / "runs" / name)
    images = sorted(coco.rglob("*.png")) + sorted(coco.rglob("*.jpg"))
    for folder in ("photos", "million"):
        (root / folder).mkdir()
        for image in images[:4]:
            shutil.copy(image, root / folder)
    sdk.predict(images[0], root / "runs" / "a").save(root / "street.jpg")
    return root
