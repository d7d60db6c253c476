"""Looking through the zoo and handing weights on."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open

import sdk
from sdk import cli, models, zoo
from sdk.errors import SdkError


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
    small = {line.split()[0] for line in told(capsys, "*tiny*", "--max-parameters", "1")[2:]}
    assert "retinanet_tiny_shapes" in small
    assert cli.main(["zoo", "--min-ap", "99"]) == 1


def test_parameters_are_those_of_the_model() -> None:
    model = models.create("retinanet_r50_fpn_1x_coco", weights=None)
    expected = sum(value.numel() for value in model.parameters())
    assert zoo.entries("retinanet_r50_fpn_1x_coco")[0].parameters == expected


def test_card_tells_the_figures(capsys) -> None:
    card = "\n".join(told(capsys, "faster_rcnn_r50_fpn_1x_coco", "--card"))
    assert "| box AP | 37.4 |" in card
    assert "41.8 million parameters" in card or "41.5 million parameters" in card
    assert "Apache License 2.0" in card


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
    trained = sdk.checkpoint.load(out)
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


def test_the_written_table_has_every_name() -> None:
    page = (Path(__file__).parents[2] / "docs" / "zoo.md").read_text()
    missing = [name for name in models.names() if f"| `{name}` |" not in page]
    assert not missing, "write it anew: sdk zoo --markdown > docs/zoo.md"
