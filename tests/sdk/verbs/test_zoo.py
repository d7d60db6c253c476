"""Looking through the zoo and handing weights on."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open

import sdk
from sdk import cli, models
from sdk.datasets import Shapes
from sdk.errors import SdkError
from sdk.models.zoo import parity, recipes
from sdk.models.zoo.index import count_parameters, entry_of, index, written
from sdk.results.run import load
from sdk.verbs import zoo


def told(capsys, *arguments: str) -> list[str]:
    assert cli.main(["zoo", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_lists_everything(capsys) -> None:
    assert {line.split()[0] for line in told(capsys)[2:]} == set(models.names())


def test_filters(capsys) -> None:
    published = {name: recipe.published.get("box_ap", 0) for name, recipe in models.recipes().items()}
    strong = {line.split()[0] for line in told(capsys, "--min-ap", "45")[2:]}
    assert strong == {name for name, ap in published.items() if ap >= 45}
    assert {line.split()[3] for line in told(capsys, "--dataset", "lvis*")[2:]} == {"lvis_v1", "lvis_v0.5"}
    assert {line.split()[1] for line in told(capsys, "--method", "gfl")[2:]} == {"gfl"}
    both = told(capsys, "retinanet*", "--backbone", "resnext101")[2:]
    assert both
    assert all(line.startswith("retinanet") and "x101" in line.split()[0] for line in both)
    small = {line.split()[0] for line in told(capsys, "*tiny*", "--max-parameters", "4")[2:]}
    assert "retinanet_tiny_shapes" in small
    assert cli.main(["zoo", "--min-ap", "99"]) == 1


def test_parameters_are_those_of_the_model() -> None:
    model = models.create("retinanet_r50_fpn_1x_coco", weights=None)
    expected = sum(value.numel() for value in model.parameters())
    assert zoo.entries("retinanet_r50_fpn_1x_coco")[0].parameters == expected
    assert count_parameters(recipes()["retinanet_r50_fpn_1x_coco"]) == expected


def test_the_index_says_what_the_recipes_say() -> None:
    hint = "write it anew: python -m sdk.models.zoo.index"
    assert list(index()) == list(recipes()), hint
    for name, recipe in recipes().items():
        assert index()[name] == entry_of(recipe, index()[name].parameters), f"{name}: {hint}"


@pytest.mark.long
def test_the_index_is_what_would_be_written() -> None:
    assert Path(models.zoo.__file__).with_name("index.json").read_text() == written()


def test_card_tells_the_figures(capsys) -> None:
    card = "\n".join(told(capsys, "faster_rcnn_r50_fpn_1x_coco", "--card"))
    assert "| box AP | 37.4 |" in card
    assert "41.8 million parameters" in card or "41.5 million parameters" in card
    assert "Apache License 2.0" in card


def test_card_says_what_was_compared(monkeypatch) -> None:
    """Every state that the record knows, of a name that has one and of one that has none."""
    rows = {"retinanet_r50_fpn_1x_coco": {"state dict": "equal", "detections": "differs: by much"}}
    monkeypatch.setattr(zoo, "parity", lambda: {"reference": "Some reference.", "rows": rows})
    card = zoo.card("retinanet_r50_fpn_1x_coco")
    assert "| state dict | equal |\n| detections | differs: by much |\n\nSome reference." in card
    assert "## Agreement with the reference implementation\n\nNot compared.\n" in zoo.card("retinanet_tiny_shapes")


def test_the_record_is_of_names_that_there_are() -> None:
    record = parity()
    assert record["reference"]
    assert set(record["rows"]) <= set(recipes())
    for name, row in record["rows"].items():
        assert list(row) == ["state dict", "detections", "losses"], name
        for state in row.values():
            assert state in ("equal", "not compared") or state.startswith("differs: "), name


@pytest.fixture
def published(tmp_path: Path, monkeypatch) -> str:
    """A name whose published weights lie in an offline folder, with an empty cache."""
    name = "retinanet_tiny_shapes"
    model = models.create(name, weights=None)
    file = tmp_path / "mirror" / "a.pth"
    file.parent.mkdir()
    torch.save({"state_dict": model.state_dict(), "meta": {"CLASSES": Shapes(1).classes}}, file)
    address = f"https://host/a-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"
    file.rename(file.with_name(address.rsplit("/", 1)[-1]))
    monkeypatch.setenv("SDK_WEIGHTS_MIRROR", str(file.parent))
    monkeypatch.setenv("SDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(recipes(), name, replace(recipes()[name], weights=address))
    return name


def test_card_has_the_figures_measured_here(published: str, tmp_path: Path, capsys) -> None:
    nothing = "## Figures measured here\n\nNone yet."
    assert nothing in zoo.card(published)
    dataset = Shapes(6, size=(64, 64))
    report = sdk.evaluate(dataset, published, workers=0)
    sdk.evaluate(dataset, published, workers=0)
    sdk.evaluate(Shapes(4, size=(64, 64)), published, workers=0, tta=models.TTA(flips=("horizontal",)))
    told = "\n".join(told_by_card(capsys, published))
    assert nothing not in told
    # The same evaluation once more takes the place of the first.
    assert told.count("Published weights; Shapes of fingerprint") == 2
    assert f"{report.counts.images} images, {report.counts.ground_truths} objects." in told
    assert f"| bbox/AP | {report['bbox/AP']:.4f} |" in told
    assert "test-time augmentation: scales 1; flips horizontal" in told
    assert nothing in zoo.card("mask_rcnn_tiny_shapes")


def test_card_has_the_figures_of_runs(published: str, tmp_path: Path, capsys) -> None:
    model = models.create(published, weights=None)
    run = sdk.fit(Shapes(4, size=(64, 64)), model, out=tmp_path / "run", workers=0, epochs=1)
    assert cli.main(["zoo", published, "--card", "--run", str(run.folder)]) == 1
    assert "was not evaluated yet" in capsys.readouterr().err
    report = sdk.evaluate(Shapes(5, size=(64, 64)), run, workers=0)
    told = "\n".join(told_by_card(capsys, published, "--run", str(run.folder)))
    assert f"Trained here, `{run.folder}`; {report.counts.images} images" in told
    assert report.protocol in told
    assert cli.main(["zoo", "mask_rcnn_tiny_shapes", "--card", "--run", str(run.folder)]) == 1
    assert "is a retinanet_tiny_shapes, and no mask_rcnn_tiny_shapes" in capsys.readouterr().err


def told_by_card(capsys, name: str, *arguments: str) -> list[str]:
    capsys.readouterr()
    return told(capsys, name, "--card", *arguments)


def test_export_can_be_used(tmp_path: Path, capsys) -> None:
    name = "retinanet_tiny_shapes"
    model = models.create(name, weights=None)
    names = tuple(f"shape{i}" for i in range(model.num_classes))
    torch.save({"state_dict": model.state_dict(), "meta": {"CLASSES": names}}, tmp_path / "a.pth")
    out = tmp_path / "new" / "a.safetensors"
    assert told(capsys, "export", name, str(out), "--weights", str(tmp_path / "a.pth")) == [str(out)]
    with safe_open(str(out), framework="pt") as file:
        metadata = file.metadata()
    assert metadata["model"] == name
    assert tuple(json.loads(metadata["classes"])) == names
    assert metadata["source"] == "a.pth"
    trained = load(out)
    assert trained.classes == names
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in trained.model.state_dict().items())
    subset = models.create(name, num_classes=SimpleNamespace(classes=names[1:2]), weights=out)
    key = "bbox_head.retina_cls.bias"
    anchors = len(subset.state_dict()[key])
    assert torch.equal(subset.state_dict()[key], model.state_dict()[key].view(anchors, -1)[:, 1])
    with pytest.raises(SdkError, match="exists already"):
        zoo.export(name, out, str(tmp_path / "a.pth"))
    with pytest.raises(SdkError, match="ends in"):
        zoo.export(name, tmp_path / "a.bin")
    assert cli.main(["zoo", "export", name]) == 1
    assert cli.main(["zoo", "export", name, str(tmp_path / "b.safetensors")]) == 1
    assert "no weights were published" in capsys.readouterr().err


def test_export_says_where_the_weights_come_from(published: str, tmp_path: Path) -> None:
    out = zoo.export(published, tmp_path / "a.safetensors")
    with safe_open(str(out), framework="pt") as file:
        metadata = file.metadata()
    assert metadata["source"] == recipes()[published].weights
    assert metadata["license"] == "Apache-2.0"


def test_export_of_a_file_without_class_names_names_none(tmp_path: Path) -> None:
    """Such a detector fits every dataset of as many classes, before and after."""
    name = "retinanet_tiny_shapes"
    torch.save({"state_dict": models.create(name, weights=None).state_dict(), "meta": {}}, tmp_path / "a.pth")
    out = zoo.export(name, tmp_path / "a.safetensors", str(tmp_path / "a.pth"))
    trained = load(out)
    assert trained.classes is None
    assert trained.model.num_classes == 4
    assert sdk.evaluate(Shapes(4, size=(64, 64)), out, workers=0).counts.images > 0
    assert models.create(name, weights=out).classes is None


def test_the_written_table_has_every_name() -> None:
    page = (Path(__file__).parents[3] / "docs" / "zoo.md").read_text()
    missing = [name for name in models.names() if f"| `{name}` |" not in page]
    assert not missing, "write it anew: sdk zoo --markdown > docs/zoo.md"
