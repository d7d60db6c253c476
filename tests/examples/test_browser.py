"""The browser example finds in Node and in a browser what the small runtime finds.

Skipped where Node, onnxruntime-web (``npm install onnxruntime-web`` in examples/browser) or Chromium are missing.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sdk
from sdk.datasets import Shapes

FOLDER = Path("examples/browser")
LEAST = 0.05

IN_NODE = """
import { readFileSync } from "node:fs";
import * as ort from "./node_modules/onnxruntime-web/dist/ort.node.min.mjs";
import { detect } from "./detect.mjs";
ort.env.wasm.numThreads = 1;
const [model, image, width, height, least] = process.argv.slice(2);
const session = await ort.InferenceSession.create(new Uint8Array(readFileSync(model)));
const data = new Uint8Array(readFileSync(image));
console.log(JSON.stringify(await detect(ort, session, { width: +width, height: +height, data }, +least)));
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the example, onnxruntime-web, a model and an image."""
    if not (FOLDER / "node_modules" / "onnxruntime-web").is_dir():
        pytest.skip("onnxruntime-web is not installed in examples/browser")
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("browser")
    for name in ("detect.mjs", "index.html"):
        shutil.copy(FOLDER / name, folder / name)
    (folder / "node_modules").symlink_to((FOLDER / "node_modules").resolve())
    torch.manual_seed(0)
    model = sdk.models.create("retinanet_tiny_shapes", num_classes=4, weights=None).eval()
    model.bbox_head.retina_cls.weight.data *= 30
    sdk.export(model, folder / "model.onnx")
    image = Shapes(1, size=(96, 128))[0].image
    Image.fromarray(image).save(folder / "image.png")
    (folder / "image.rgba").write_bytes(np.dstack((image, np.full(image.shape[:2], 255, np.uint8))).tobytes())
    return folder


def require_found(told, folder):
    expected = sdk.runtime.load(folder / "model.onnx")(np.asarray(Image.open(folder / "image.png")), LEAST)
    assert len(told) == len(expected) > 0
    np.testing.assert_allclose([one["score"] for one in told], expected.scores, rtol=0, atol=1e-4)
    np.testing.assert_allclose([one["box"] for one in told], expected.boxes, rtol=0, atol=0.05)
    assert [one["label"] for one in told] == expected.labels.tolist()


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_in_node(place):
    (place / "run.mjs").write_text(IN_NODE)
    command = ["node", "run.mjs", "model.onnx", "image.rgba", "128", "96", str(LEAST)]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
    require_found(json.loads(done.stdout), place)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
def test_in_a_browser(place):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(place)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/?image=image.png&least={LEAST}"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=300000", "--dump-dom"]
    try:
        page = subprocess.run(
            ["chromium", *options, address], capture_output=True, text=True, check=True, timeout=600
        ).stdout
    finally:
        server.shutdown()
    told = html.unescape(re.search(r'<pre id="found">(.*?)</pre>', page, re.DOTALL)[1])
    require_found(json.loads(told), place)
