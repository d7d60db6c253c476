"""The scripts of the datasets with a protocol of their own train a step, score and report on the real samples."""

import warnings

import pytest

# script, sample, options, the figure by which runs are compared
CASES = [
    ("lvis", "lvis_val_100", ["--train", "lvis_val_100", "--score", "lvis_val_100"], "bbox/AP"),
    ("cityscapes", "cityscapes", ["--score", "train"], "bbox/AP"),
    ("wider_face", "wider_face", ["--train", "val_24", "--score", "val_24"], "bbox/AP_easy"),
    ("deepfashion", "fashionpedia_sample", ["--train", "sample", "--score", "sample"], "bbox/AP"),
]


@pytest.mark.parametrize(("script", "sample", "options", "figure"), CASES, ids=[case[0] for case in CASES])
def test_trains_and_scores(example, shared, tmp_path, monkeypatch, capsys, script, sample, options, figure):
    monkeypatch.setenv("SDK_CACHE", str(tmp_path / "cache"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = example(script).main(
            [str(shared / "data" / sample), *options, "--epochs", "1", "--out", str(tmp_path / "run")]
        )
    assert found is not None
    assert 0 <= found <= 1
    assert figure in capsys.readouterr().out
    assert (tmp_path / "run" / "evaluation").is_dir()
