"""Find objects with an exported file: numpy, onnxruntime and Pillow, and nothing of this package.

``python examples/run_exported.py model.onnx street.jpg``
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image


def main(model: str, picture: str, least: float = 0.3) -> list[tuple[str, float, list[float]]]:
    """Class name, score and box (x1, y1, x2, y2 in the picture's pixels) of every object, best first."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["sdk.json"])
    names = about["classes"] or [str(label) for label in range(about["num_classes"])]

    # Resizing and normalization are inside: the file takes (1, 3, H, W) uint8 RGB of any size.
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    images = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])
    boxes, scores, labels, count = session.run(["boxes", "scores", "labels", "count"], {"images": images})

    # What stands behind the count is padding.
    found = []
    for box, score, label in zip(boxes[0, : count[0]], scores[0], labels[0]):
        if score >= least:
            found.append((names[label], float(score), box.tolist()))
    return found


if __name__ == "__main__":
    for name, score, box in main(*sys.argv[1:3]):
        print(f"{name} {score:.2f} {' '.join(f'{edge:.0f}' for edge in box)}")
