"""Training end to end: what it leaves, how it stops, and that going on changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import sdk
from sdk import models
from sdk.datasets import Coco, DatasetError, Shapes, WiderFace, subset
from sdk.datasets.transforms import Flip, Preprocessing
from sdk.errors import ClassMismatch, NonFiniteLoss, RunError
from sdk.evaluators.coco import CocoEvaluator
from sdk.models.recipe import Optimizer
from sdk.results.manifest import read_metrics
from sdk.results.state import load_training_state

TRAINING = """
import sys
from dataclasses import replace
from functools import partial
import torch, sdk
from sdk.datasets.transforms import Flip, PhotometricDistortion, Preprocessing, ScaleJitter
from sdk import models
from sdk.models.recipe import Optimizer
from sdk.models.zoo.tiny import RETINANET, tiny_retinanet

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = tiny_retinanet(4, base_channels=4, channels=8, depth=1)
    model.recipe = replace(
        RETINANET, preprocessing=Preprocessing(size=(64, 64)), images_per_device=2, ema_decay=0.9,
        train_transforms=(ScaleJitter((64, 64), (0.8, 1.2)), Flip(), PhotometricDistortion()),
        schedule=replace(RETINANET.schedule, epochs=3), optimizer=Optimizer(lr=0.02, clip_norm=10.0),
    )
    sdk.fit(sdk.datasets.Shapes(24, size=(64, 64)), model, workers=2, out=sys.argv[1], resume="auto", save_every=5)
"""


def start(script: Path, out: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, str(script), str(out)], stderr=subprocess.PIPE, text=True)


def wait_for_step(out: Path, step: int) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        lines = read_metrics(out / "metrics.jsonl")
        if lines and lines[-1]["step"] >= step:
            return
        time.sleep(0.02)
    raise TimeoutError(f"step {step} was not reached")


def finish(process: subprocess.Popen) -> str:
    _, told = process.communicate(timeout=180)
    assert process.returncode == 0, told
    return told


def tensors(state: object, name: str = "") -> dict[str, torch.Tensor]:
    """Every tensor of nested dicts and lists by its path."""
    if isinstance(state, torch.Tensor):
        return {name: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    return {path: value for key, part in items for path, value in tensors(part, f"{name}/{key}").items()}


def test_killed_and_resumed_ends_with_the_same_bits(tmp_path):
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    finish(start(script, tmp_path / "whole"))

    broken = tmp_path / "broken"
    process = start(script, broken)
    wait_for_step(broken, 19)  # within the second epoch of twelve steps
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 15 <= load_training_state(broken / "last.pt")["step"] < 36
    process = start(script, broken)
    wait_for_step(broken, 27)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, told
    assert "resume='auto'" in told
    finish(start(script, broken))

    one, other = (load_training_state(tmp_path / name / "last.pt") for name in ("whole", "broken"))
    assert one["step"] == other["step"] == 36
    assert one["best"] == other["best"]
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    assert any("averaged" in name for name in first)
    assert any("momentum" in name for name in first)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    for name, value in load_file(tmp_path / "whole/best.safetensors").items():
        assert torch.equal(value, load_file(broken / "best.safetensors")[name]), name
    assert read_metrics(tmp_path / "whole/metrics.jsonl") == read_metrics(broken / "metrics.jsonl")


def test_a_run_leaves_everything(tmp_path, shapes, tiny, capsys):
    run = sdk.fit(shapes, tiny(), out=tmp_path / "run", workers=0, accumulate=2, ema=0.9)
    told = capsys.readouterr().err
    assert "batch 8 (4 images x 2 passes x 1 devices)" in told
    assert "learning rate 0.04 (the recipe's 0.02 is for a batch of 4)" in told
    for name in ("manifest.json", "metrics.jsonl", "best.safetensors", "last.safetensors", "last.pt", "curves.png"):
        assert (run.folder / name).is_file(), name
    assert len(list((run.folder / "predictions").glob("*.png"))) == 4
    assert list((run.folder / "tensorboard").iterdir())
    assert not list(run.folder.glob(".*"))
    manifest = json.loads((run.folder / "manifest.json").read_text())
    assert manifest["classes"] == list(shapes.classes)
    assert manifest["category_ids"] == [1, 2, 3, 4]
    assert manifest["dataset"]["fingerprint"] == shapes.fingerprint
    assert manifest["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert manifest["options"]["seed"] == 0
    lines = run.history
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert [line["epoch"] for line in lines if "metrics" in line] == [1, 2]
    terms = lines[0]
    assert terms["loss"] == pytest.approx(terms["loss_cls"] + terms["loss_bbox"], rel=1e-5)
    report = sdk.evaluate(shapes, run, workers=0)
    assert report.counts.images == len(shapes.val)
    assert (run.folder / "evaluation/report.html").is_file()
    assert report["bbox/AP"] == max(line["metrics"]["bbox/AP"] for line in lines if "metrics" in line)


def test_the_same_seed_gives_the_same_weights(tmp_path, shapes, tiny):
    runs = [
        sdk.fit(shapes, tiny(), out=tmp_path / str(i), workers=i, epochs=1, seed=s) for i, s in enumerate((3, 3, 4))
    ]
    first, same, other = (load_file(run.weights_file)["bbox_head.retina_cls.weight"] for run in runs)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_images_are_prepared_as_in_training(tmp_path, shapes, tiny):
    """A recipe given beside a detector without one is that of the run, here and when its folder is opened again."""
    made = tiny()
    recipe = replace(made.recipe, name="mine", preprocessing=Preprocessing(size=(96, 80), keep_ratio=False, divisor=16))
    del made.recipe
    run = sdk.fit(shapes, made, recipe=recipe, epochs=1, workers=0, out=tmp_path / "run")
    fresh = tiny()
    del fresh.recipe
    for opened in (run, sdk.Run(tmp_path / "run", model=fresh)):
        assert opened.recipe.preprocessing == recipe.preprocessing
        assert opened.recipe.name == "mine"
        assert not opened.recipe.needs_masks


def test_accumulated_passes_equal_one_large_batch(tmp_path, shapes, tiny):
    """The order of an epoch does not depend on the batch, so two half batches are one whole, but for statistics."""

    def trained(**options) -> dict[str, torch.Tensor]:
        model = tiny(optimizer=Optimizer(lr=0.01, momentum=0.0, weight_decay=0.0))
        model.recipe = replace(model.recipe, train_transforms=())
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train = lambda mode=True, module=module: module  # type: ignore[method-assign]
                module.training = False
        model.bbox_head.loss = lambda outputs, images, targets: {
            "loss": sum(level.square().mean(dim=(1, 2, 3)).sum() for level in outputs[0]) / len(images)
        }
        sdk.fit(shapes, model, workers=0, epochs=1, **options)
        return model.state_dict()

    whole = trained(out=tmp_path / "whole", batch_size=4, lr=0.01)
    halves = trained(out=tmp_path / "halves", batch_size=2, accumulate=2, lr=0.01)
    for name, value in whole.items():
        torch.testing.assert_close(value, halves[name], rtol=1e-4, atol=1e-6, msg=name)


def test_non_finite_loss_names_step_term_and_images(tmp_path, shapes, tiny):
    model = tiny()
    whole = model.forward

    def broken(images, targets):
        losses = whole(images, targets)
        return {**losses, "loss_bbox": losses["loss_bbox"] * float("nan")}

    model.forward = broken
    with pytest.raises(
        NonFiniteLoss, match=r"step 0 \(epoch 1\): loss_bbox = nan; images \d+, \d+, \d+, \d+;"
    ) as error:
        sdk.fit(shapes, model, out=tmp_path / "run", workers=0)
    assert "loss_cls" not in str(error.value)


def test_patience_ends_the_training(tmp_path, shapes, tiny):
    model = tiny(optimizer=Optimizer(lr=0.0))
    sdk.fit(shapes, model, out=tmp_path / "run", workers=0, epochs=8, patience=2)
    assert load_training_state(tmp_path / "run/last.pt")["epoch"] == 3


class Bare:
    """A plain class as a dataset: boxes, and nothing that no dataset has to give."""

    classes, category_ids, fingerprint = ("circle", "square", "triangle", "cross"), (1, 2, 3, 4), "bare"

    def __init__(self) -> None:
        self.inner = Shapes(8, size=(64, 64))

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index):
        return replace(self.inner[index], masks=None)

    def info(self, index):
        return self.inner.info(index)

    def evaluator(self):
        return CocoEvaluator(self, kinds=("bbox",))


def test_learning_without_validation(tmp_path, tiny):
    run = sdk.fit(Bare(), tiny(), out=tmp_path / "run", workers=0, epochs=1)
    assert run.weights_file.is_file()


def test_wrong_classes(tmp_path, shapes, tiny):
    with pytest.raises(ClassMismatch, match="the model has 3 classes, the dataset 4"):
        sdk.fit(shapes, tiny(3), out=tmp_path / "run")
    run = sdk.fit(shapes, tiny(), out=tmp_path / "run", workers=0, epochs=1)
    fewer = Shapes(8, size=(64, 64), classes=("circle", "cross"))
    with pytest.raises(ClassMismatch, match="only the model has 'square', 'triangle'"):
        sdk.evaluate(fewer, run)
    turned = Shapes(8, size=(64, 64), classes=("square", "circle", "triangle", "cross"))
    with pytest.raises(ClassMismatch, match="order is not"):
        sdk.fit(turned, run, out=tmp_path / "other")


@pytest.mark.parametrize("field", ["masks", "semantic", "proposals"])
def test_what_the_dataset_lacks_is_said_before_anything_is_written(tmp_path, tiny, field):
    with pytest.raises(DatasetError, match=rf"image .*field '{field}'.*expected"):
        sdk.fit(Bare(), tiny(**{f"needs_{field}": True}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "value"), [("epochs", 0), ("accumulate", 0), ("lr", -1.0), ("lr", float("nan"))])
def test_numbers_that_cannot_be(tmp_path, shapes, tiny, name, value):
    with pytest.raises(ValueError, match=f"{name}: expected a"):
        sdk.fit(shapes, tiny(), out=tmp_path / "run", **{name: value})


def test_a_taken_folder_and_another_training(tmp_path, shapes, tiny):
    out = tmp_path / "run"
    sdk.fit(shapes, tiny(), out=out, workers=0, epochs=1)
    with pytest.raises(RunError, match="holds a run"):
        sdk.fit(shapes, tiny(), out=out, workers=0, epochs=1)
    with pytest.raises(RunError, match=r"options differs: .*seed was 0, is 1"):
        sdk.fit(shapes, tiny(), out=out, workers=0, epochs=1, seed=1, resume="auto")
    with pytest.raises(RunError, match="dataset differs"):
        sdk.fit(Shapes(20, size=(64, 64)), tiny(), out=out, workers=0, epochs=1, resume="auto")
    plain = replace(tiny().recipe, train_transforms=(Flip(),), document="elsewhere")
    with pytest.raises(RunError, match=r"recipe differs: train_transforms was .*PhotometricDistortion.*, is .*Flip"):
        sdk.fit(shapes, tiny(), recipe=plain, out=out, workers=0, epochs=1, resume="auto")
    same = replace(tiny().recipe, document="elsewhere")
    assert sdk.fit(shapes, tiny(), recipe=same, out=out, workers=0, epochs=1, resume="auto").folder == out


def test_a_resumed_run_may_be_longer_and_spread_otherwise(tmp_path, shapes, tiny, capsys):
    out = tmp_path / "run"
    sdk.fit(shapes, tiny(), out=out, workers=0, epochs=1)
    run = sdk.fit(shapes, tiny(), out=out, workers=0, epochs=2, batch_size=2, accumulate=2, resume="auto")
    told = capsys.readouterr().err
    assert "resumed with images x passes x devices: 2 x 2 x 1 instead of 4 x 1 x 1, the same total batch" in told
    assert "resumed with 2 epochs instead of 1" in told
    assert [line["epoch"] for line in run.history if "metrics" in line] == [1, 2]
    assert run.manifest["options"]["accumulate"] == 2
    for changes in ({"batch_size": 2}, {"batch_size": 2, "accumulate": 2, "epochs": 1}):
        with pytest.raises(RunError, match="cannot be resumed, its options differ"):
            sdk.fit(shapes, tiny(), out=out, workers=0, resume="auto", **{"epochs": 2, **changes})


def test_the_best_epochs_stay(tmp_path, shapes, tiny):
    run = sdk.fit(shapes, tiny(), out=tmp_path / "run", workers=0, epochs=4, keep_best=2, keep_last=3)
    figures = [line["metrics"]["bbox/AP"] for line in run.history if "metrics" in line]
    ranked = sorted(range(4), key=lambda epoch: (-figures[epoch], epoch))
    kept = sorted(path.stem for path in run.folder.glob("epoch-*.safetensors"))
    assert kept == sorted(f"epoch-{epoch + 1}" for epoch in ranked[:2])
    best, first = (load_file(run.folder / f"{name}.safetensors") for name in ("best", f"epoch-{ranked[0] + 1}"))
    assert all(torch.equal(best[key], first[key]) for key in best)
    assert len(list(run.folder.glob("last*.pt"))) == 3


def test_default_folders_are_numbered(tmp_path, shapes, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [sdk.fit(shapes, tiny(), workers=0, epochs=1).folder for _ in range(2)]
    assert [str(folder) for folder in folders] == ["runs/retinanet_tiny_shapes", "runs/retinanet_tiny_shapes-2"]
    assert sdk.fit(shapes, tiny(), workers=0, epochs=1, resume="auto").folder == folders[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_and_a_truncated_image_are_named(tmp_path, tiny, workers):
    root = Shapes(8, size=(64, 64)).write_coco(tmp_path / "data")
    dataset = sdk.datasets.Coco(root)
    path = dataset.path(3)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetError, match=path.name):
        sdk.fit(dataset, tiny(), out=tmp_path / "one", workers=workers)
    path.unlink()
    with pytest.raises(DatasetError, match=f"{path.name}.*missing"):
        sdk.fit(dataset, tiny(), out=tmp_path / "two", workers=workers)


def test_half_precision_on_a_cpu(tmp_path, shapes, tiny):
    with pytest.raises(ValueError, match="16 needs a GPU"):
        sdk.fit(shapes, tiny(), out=tmp_path / "run", precision="16", devices=1)
    with pytest.raises(ValueError, match="found '8'"):
        sdk.fit(shapes, tiny(), out=tmp_path / "run", precision="8")
    run = sdk.fit(shapes, tiny(), out=tmp_path / "run", precision="bf16", workers=0, epochs=1)
    assert run.manifest["options"]["precision"] == "bf16-mixed"


def test_two_processes_train_together(tmp_path):
    script = tmp_path / "training.py"
    script.write_text(TRAINING.replace('resume="auto", save_every=5', "devices=2, strategy='ddp', epochs=1"))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "x 2 devices" in done.stderr
    lines = read_metrics(tmp_path / "run/metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 7))
    report = next(line for line in lines if "metrics" in line)
    run = sdk.Run(tmp_path / "run", model=sdk.models.zoo.tiny.tiny_retinanet(4, base_channels=4, channels=8, depth=1))
    assert report["metrics"]["bbox/AP"] is not None
    assert len(run.classes) == 4


@pytest.mark.long
def test_a_small_detector_learns_shapes(tmp_path):
    """Random weights, 200 drawings: shapes are found; AP50 was 0.82 on the validation split when this was written."""
    shapes = Shapes(200)
    run = sdk.fit(shapes, "retinanet_tiny_shapes", out=tmp_path / "run")
    ap50 = sdk.evaluate(shapes.val, run)["bbox/AP50"]
    assert ap50 is not None
    assert ap50 > 0.6


def test_the_seed_decides_the_weights(shapes, tmp_path):
    def trained(name: str, seed: int) -> bytes:
        out = tmp_path / name
        sdk.fit(shapes, "retinanet_tiny_shapes", seed=seed, epochs=1, batch_size=8, workers=0, out=out)
        return (out / "last.safetensors").read_bytes()

    state = torch.get_rng_state()
    models.create("retinanet_tiny_shapes", weights=None, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    first = trained("a", 3)
    torch.manual_seed(99)
    assert trained("b", 3) == first
    assert trained("c", 4) != first
    code = (
        "import sdk; from sdk.datasets import Shapes; "
        "sdk.fit(Shapes(16, size=(64, 64), max_objects=3), 'retinanet_tiny_shapes', seed=3, epochs=1, batch_size=8, "
        f"workers=0, out={str(tmp_path / 'd')!r})"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment, timeout=300)
    assert (tmp_path / "d" / "last.safetensors").read_bytes() == first
    build = json.loads((tmp_path / "a" / "manifest.json").read_text())["recipe"]["build"]
    assert "sdk.models.zoo.tiny:tiny_retinanet" in json.dumps(build)


def test_sampling_is_said_and_kept(shapes, tiny, tmp_path, capsys):
    run = sdk.fit(shapes, tiny(), sampling={"circle": 0.6}, epochs=2, workers=0, out=tmp_path / "run")
    said = capsys.readouterr().err
    assert "showings an epoch, before and with sampling" in said
    kept = json.loads((run.folder / "exposure.json").read_text())
    assert set(kept["planned"]["classes"]) == set(shapes.classes)
    natural = kept["planned"]["classes"]["circle"]["images"]
    assert kept["planned"]["classes"]["circle"]["target"] > natural
    assert kept["realized"]["epochs"] == 2
    assert run.manifest["sampling"] == {"circle": 0.6}
    with pytest.raises(RunError, match="sampling differs"):
        sdk.fit(shapes, tiny(), sampling="uniform", epochs=2, workers=0, out=tmp_path / "run", resume="auto")


@pytest.mark.parametrize("epochs", [0.5, 0, True])
def test_epochs_are_whole_numbers(shapes, tiny, tmp_path, epochs):
    with pytest.raises(ValueError, match="epochs: expected a whole number of at least 1"):
        sdk.fit(shapes, tiny(), epochs=epochs, workers=0, out=tmp_path / "run")


def test_images_of_training_in_validation(tiny, tmp_path, capsys):
    dataset = Coco(Shapes(8, size=(64, 64), max_objects=3).write_coco(tmp_path / "data"))
    options = {"epochs": 1, "workers": 0, "validation": subset(dataset.train, range(8))}
    with pytest.raises(RunError, match="8 of 8 images of validation are also learnt from"):
        sdk.fit(dataset.train, tiny(), leaks="raise", out=tmp_path / "refused", **options)
    assert not (tmp_path / "refused").exists()
    sdk.fit(dataset.train, tiny(), out=tmp_path / "run", **options)
    assert "scores will be too good" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ValueError, match="leaks: expected"):
        sdk.fit(dataset.train, tiny(), leaks="no", out=tmp_path / "other", **options)


@pytest.mark.parametrize("size", [0, -1, 0.5, True])
def test_batches_are_whole_numbers(shapes, tiny, tmp_path, size):
    with pytest.raises(ValueError, match="batch_size: expected a whole number of at least 1, found"):
        sdk.fit(shapes, tiny(), batch_size=size, out=tmp_path / "run")
    with pytest.raises(ValueError, match="batch_size: expected a whole number"):
        sdk.predict([shapes[0].image], tiny(), batch_size=size)
    with pytest.raises(ValueError, match="batch_size: expected a whole number"):
        sdk.evaluate(shapes, tiny(), batch_size=size)


def test_wider_face_trains_without_the_files_of_its_protocol(tiny, tmp_path, capsys):
    for split in ("train", "val"):
        (tmp_path / f"data/WIDER_{split}/images/0--Parade").mkdir(parents=True)
        (tmp_path / "data/wider_face_split").mkdir(exist_ok=True)
        for number in range(4):
            image = np.full((80, 80, 3), number, np.uint8)
            cv2.imwrite(str(tmp_path / f"data/WIDER_{split}/images/0--Parade/{split}{number}.jpg"), image)
        lines = [f"0--Parade/{split}{number}.jpg\n1\n20 20 30 30 0 0 0 0 0 0" for number in range(4)]
        file = tmp_path / f"data/wider_face_split/wider_face_{split}_bbx_gt.txt"
        file.write_text("\n".join(lines) + "\n")
    model = tiny(num_classes=1)
    model.classes = ("face",)
    run = sdk.fit(WiderFace(tmp_path / "data"), model, epochs=1, workers=0, out=tmp_path / "run")
    assert (run.folder / "best.safetensors").is_file()
    assert "validation is not scored" in " ".join(capsys.readouterr().err.split())
