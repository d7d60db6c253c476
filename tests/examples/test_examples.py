"""Every script runs from its data to its figure, for a few steps."""

from __future__ import annotations

import pytest

import sdk


@pytest.mark.parametrize("name", ["coco", "voc", "your_own_dataset", "add_a_method"])
def test_script(example, name, tmp_path):
    score = example(name).main(["--images", "16", "--epochs", "1", "--out", str(tmp_path / "run")])
    assert score is not None
    assert 0 <= score <= 1
    assert (tmp_path / "run/evaluation/report.html").is_file()
    assert (tmp_path / "run/best.safetensors").is_file()


def test_quickstart_on_shapes(example, tmp_path, capsys):
    example("quickstart").main(["shapes:16", "--epochs", "1", "--out", str(tmp_path / "run")])
    told = capsys.readouterr().out
    assert "bbox/AP50" in told
    assert "report.html" in told
    assert "data:image/jpeg" in (tmp_path / "run/evaluation/report.html").read_text()  # pictures are inside of the page


def test_quickstart_on_a_folder(example, tmp_path):
    """A folder with images of people's own: its layout is recognized, its test split scored."""
    folder = example("voc").write_voc(sdk.datasets.Shapes(8), tmp_path / "data")
    example("quickstart").main([str(folder), "--epochs", "1", "--out", str(tmp_path / "run")])
    report = (tmp_path / "run/evaluation/report.txt").read_text()
    assert report.startswith("COCO detection")
    assert "2 images" in report


def test_written_voc_folder_holds_the_same_boxes(example, tmp_path):
    shapes = sdk.datasets.Shapes(6)
    voc = sdk.datasets.Voc(example("voc").write_voc(shapes, tmp_path / "data"))
    assert len(voc) == 6
    for index in range(6):
        names = {(voc.classes[label], *box) for label, box in zip(voc[index].labels, voc[index].boxes.tolist())}
        drawn = shapes[index]
        assert names == {(shapes.classes[label], *box) for label, box in zip(drawn.labels, drawn.boxes.tolist())}
