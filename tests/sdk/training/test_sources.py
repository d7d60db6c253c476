"""Keywords, flags, a YAML file and a manifest say the same options; a dry run says all and trains nothing."""

from __future__ import annotations

import json
from dataclasses import asdict

import cv2
import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

import sdk
from sdk import cli
from sdk.datasets.transforms import Flip, Preprocessing
from sdk.errors import SdkError
from sdk.inference.batching import Batch
from sdk.models.structures import ImageBatch, Targets
from sdk.training.memory import kept_for_backward
from sdk.training.options import Options, takes

SAID = {
    "batch_size": 4,
    "image_size": (96, 64),
    "transforms": "light",
    "sampling": {"circle": 0.5},
    "freeze": ("backbone.layer1", "neck"),
    "epochs": 3,
    "lr": 1e-3,
    "schedule": "one-cycle",
    "precision": "32",
    "devices": 1,
    "loggers": ("csv",),
    "keep_best": 2,
    "deterministic": True,
}
FLAGS = (
    "--batch-size 4 --image-size 96x64 --transforms light --sampling circle=0.5 --freeze backbone.layer1,neck "
    "--epochs 3 --lr 1e-3 --schedule one-cycle --precision 32 --devices 1 --loggers csv --keep-best 2 --deterministic"
)
FILE = """
dataset: shapes
model: retinanet_tiny_shapes
data:
  batch_size: 4
  image_size: 96x64
  transforms: light
  sampling: {circle: 0.5}
freeze: [backbone.layer1, neck]
optimization: {epochs: 3, lr: 1e-3, schedule: one-cycle}
hardware:
  precision: 32
  devices: 1
  deterministic: true
scoring: {loggers: csv}
keep_best: 2
"""


@pytest.fixture
def asked(monkeypatch):
    """What ``fit`` is asked for, instead of doing it."""
    calls = []

    @takes(Options)
    def fit(dataset, model, options):
        calls.append(
            (dataset, model, {k: v for k, v in asdict(options).items() if k not in ("config", "from_manifest")})
        )

    monkeypatch.setattr(sdk, "fit", fit, raising=False)
    return calls


def test_four_ways_say_the_same(tmp_path, asked):
    file = tmp_path / "run.yaml"
    file.write_text(FILE)
    sdk.fit("shapes", "retinanet_tiny_shapes", **SAID)
    assert cli.main(["fit", "shapes", "retinanet_tiny_shapes", *FLAGS.split()]) == 0
    assert cli.main(["fit", "--config", str(file)]) == 0
    sdk.fit(config=file)
    assert all(call == asked[0] for call in asked)
    assert {name: asked[0][2][name] for name in SAID} == SAID
    # What is given besides comes first.
    assert cli.main(["fit", "other", "--config", str(file), "--epochs", "5"]) == 0
    assert asked[-1] == ("other", "retinanet_tiny_shapes", {**asked[0][2], "epochs": 5})


def test_a_manifest_gives_the_run_again(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"epochs": 1, "batch_size": 8, "workers": 0, "freeze": "neck", "seed": 3, "max_steps": 2}
    first = sdk.fit("shapes", "retinanet_tiny_shapes", out="first", **given)
    assert cli.main(["fit", "--from-manifest", "first", "--out", "second"]) == 0
    assert "compared with first: nothing differs" in capsys.readouterr().err
    assert (tmp_path / "second/last.safetensors").read_bytes() == (tmp_path / "first/last.safetensors").read_bytes()
    other = json.loads((tmp_path / "second/manifest.json").read_text())["given"]
    kept = {name: value for name, value in first.manifest["given"].items() if name not in ("out", "from_manifest")}
    assert {name: other[name] for name in kept} == kept
    assert cli.main(["fit", "--from-manifest", "first", "--out", "third", "--seed", "4", "--dry-run"]) == 0
    assert "options.seed: was 3, is 4" in capsys.readouterr().err


def test_what_was_an_object_has_to_be_given_again(tmp_path, shapes, tiny):
    first = sdk.fit(shapes, tiny(), epochs=1, workers=0, transforms=[Flip()], out=tmp_path / "run")
    with pytest.raises(SdkError, match="dataset was given as an object of Python; give it again"):
        sdk.fit(from_manifest=first.folder)
    with pytest.raises(SdkError, match=r"transforms was given as an object of Python; give it again .*Flip"):
        sdk.fit(shapes, tiny(), from_manifest=first.folder)
    options = {"from_manifest": first.folder, "transforms": [Flip()], "out": tmp_path / "again"}
    again = sdk.fit(shapes, tiny(), **options)
    assert again.weights_file.read_bytes() == first.weights_file.read_bytes()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("epoch: 3", r"epoch: no such option \(did you mean epochs\?\)"),
        ("optimization: {lrr: 3}", r"optimization.lrr: no such option \(did you mean lr\?\)"),
        ("optimization: {batch_size: 3}", "optimization.batch_size: no such option"),
        ("epochs: many", "epochs: .*'many'"),
        ("epochs: [", "not valid YAML"),
        ("- epochs", "expected names and values"),
        ("callbacks: x", "callbacks: no such option"),
        ("image_size: 64o", "image_size: image_size: expected an edge"),
    ],
)
def test_a_wrong_file_is_told(tmp_path, text, told):
    file = tmp_path / "run.yaml"
    file.write_text(f"{text}\n")
    with pytest.raises(SdkError, match=told) as error:
        sdk.fit("shapes", "retinanet_tiny_shapes", config=file)
    assert str(file) in str(error.value)


def test_without_data_nothing_is_done(tmp_path, capsys):
    with pytest.raises(SdkError, match="model: expected one"):
        sdk.fit("shapes")
    assert cli.main(["fit", "shapes"]) == 1
    assert "expected a dataset and a model" in capsys.readouterr().err
    assert cli.main(["fit", "--config", str(tmp_path / "none.yaml")]) == 1
    assert "no such file" in capsys.readouterr().err


def test_a_dry_run_says_all_and_trains_nothing(tmp_path, shapes, tiny, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert sdk.fit(shapes, model, dry_run=True, freeze="backbone", workers=0) is None
    told = capsys.readouterr().err
    for part in ("2 epochs", "learning rate", "showings an epoch", "memory of a step on cpu: at least", "frozen"):
        assert part in told
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [path.name for path in (tmp_path / "runs/retinanet_tiny_shapes").iterdir()] == ["batch.png"]
    picture = cv2.imread(str(tmp_path / "runs/retinanet_tiny_shapes/batch.png"))
    assert picture.shape == (2 * 96, 2 * 96, 3)  # four images of up to 77 pixels, padded to 96
    # The folder stays free for the training itself.
    assert sdk.fit(shapes, model, epochs=1, workers=0).folder.name == "retinanet_tiny_shapes"


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_pixels_come_back_from_the_network(channels):
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    preprocessing = Preprocessing(channels=channels)
    assert np.array_equal(preprocessing.denormalized(preprocessing.normalize(image)), image)


class Two(nn.Module):
    """Keeps the output of the first layer, twice: for the exponential function and for the second layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 2, 1)

    def forward(self, images: ImageBatch, targets: list[Targets]) -> dict[str, Tensor]:
        return {"loss": self.second(self.first(images.pixels).exp()).sum()}


def test_memory_for_the_backward_pass_is_that_of_hand():
    targets = [Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))] * 2
    batch = Batch(ImageBatch(torch.zeros(2, 3, 8, 8), [(8, 8)] * 2), targets, (0, 1), (None, None))
    # The exponential function keeps its result, which the second layer keeps as its input; the batch is counted apart.
    assert kept_for_backward(Fabric(accelerator="cpu", devices=1), Two(), batch) == 2 * 5 * 8 * 8 * 4
