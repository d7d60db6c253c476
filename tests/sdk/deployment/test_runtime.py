"""The small runtime finds what the detector finds, without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import sdk
from sdk.ops.paste_masks import paste_masks
from sdk.runtime import Found

# Whatever of PyTorch is imported in it ends the process; then it says how long it took and what it found.
WITHOUT_TORCH = """
import sys, json, time
for name in ("torch", "torchvision", "cv2", "scipy"):
    sys.modules[name] = None
import numpy as np
begin = time.process_time()
import sdk
model = sdk.runtime.load(sys.argv[1], threads=1)
seconds = time.process_time() - begin
found = model(np.load(sys.argv[2]), score_threshold=0.1)
print(json.dumps([seconds, found.boxes.tolist(), found.scores.tolist(), list(found.names)]))
"""


def test_it_needs_numpy_and_onnxruntime_alone(certified, detector, data, tmp_path):
    image = data[0].image
    np.save(tmp_path / "image.npy", image)
    command = [sys.executable, "-c", WITHOUT_TORCH, str(certified), str(tmp_path / "image.npy")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds, boxes, scores, names = json.loads(told)
    # The processor's time, since tests share the machine.
    assert seconds < 1
    expected = sdk.predict(image, detector, score_threshold=0.1)
    assert len(boxes) == len(expected) > 0
    np.testing.assert_allclose(scores, expected.scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(boxes, expected.boxes, rtol=0, atol=0.05)
    assert names == expected.names


def test_batches_and_what_is_no_image(certified, data):
    model = sdk.runtime.load(certified)
    images = [data[0].image, np.ascontiguousarray(data[0].image[:, ::-1])]
    for alone, paired in zip((model(image) for image in images), model.batch(images), strict=True):
        np.testing.assert_allclose(paired.boxes, alone.boxes, rtol=0, atol=0.05)
    assert model.batch([]) == []
    with pytest.raises(ValueError, match=r"image 0: expected \(H, W, 3\) uint8, found"):
        model(images[0].astype(np.float32))
    with pytest.raises(ValueError, match="image 1: expected"):
        model.batch([images[0], images[0][:50]])


def test_other_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        sdk.runtime.load(tmp_path / "absent.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a readable ONNX file"):
        sdk.runtime.load(tmp_path / "broken.onnx")


def test_masks_are_pasted_as_the_ops_do():
    random = np.random.default_rng(0)
    masks = random.random((4, 28, 28)).astype(np.float32)
    boxes = np.array([[3.2, 4.1, 40.7, 50.3], [-5, -6, 20, 30], [50, 40, 90, 75], [10, 10, 12, 60]], np.float32)
    found = Found(boxes, np.ones(4, np.float32), np.zeros(4, np.int64), ("thing",) * 4, (64, 80), masks)
    expected = paste_masks(torch.from_numpy(masks), torch.from_numpy(boxes), (64, 80)).numpy()
    # Values at the threshold may round either way.
    assert (found.masks() != expected).mean() < 1e-4
    assert expected.any()
    assert Found(boxes[:0], boxes[:0, 0], np.zeros(0, np.int64), (), (64, 80), masks[:0]).masks().shape == (0, 64, 80)


def test_the_example_runs(certified, detector, data, tmp_path):
    Image.fromarray(data[0].image).save(tmp_path / "image.png")
    command = [sys.executable, "examples/run_exported.py", str(certified), str(tmp_path / "image.png")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    expected = sdk.predict(data[0].image, detector, score_threshold=0.3)
    assert len(told) == len(expected)
    assert [line.split()[0] for line in told] == expected.names
