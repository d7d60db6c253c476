"""Certificates: what an exported file is compared by, and that a damaged file does not pass."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import sdk
from sdk import cli
from sdk.datasets import Shapes
from sdk.deployment.certificate import LIMITS, agreement, certificate_file, file_hash
from sdk.deployment.precision import to_float16, to_int8
from sdk.deployment.writing import write_openvino
from sdk.errors import RunError, SdkError
from sdk.models.structures import Detections
from sdk.runtime import METADATA

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture
def damaged(certified, tmp_path):
    """The file with weaker weights of its classifier, and the certificate of the whole one."""
    path = tmp_path / "model.onnx"
    shutil.copy(certificate_file(certified), certificate_file(path))
    made = onnx.load(certified)
    weights = next(one for one in made.graph.initializer if one.name.endswith("retina_cls.weight"))
    values = onnx.numpy_helper.to_array(weights).copy()
    values *= 0.9
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    onnx.save(made, path)
    return path


def test_a_certificate_says_what_was_compared(certified, detector, data):
    told = json.loads(certificate_file(certified).read_text())
    assert told["passed"]
    assert told["file"]["sha256"] == file_hash(certified)
    assert told["data"]["fingerprint"] == data.fingerprint
    assert told["data"]["compared"] == told["data"]["images"] == len(data)
    found = sdk.predict([data[index].image for index in range(len(data))], detector)
    assert told["agreement"]["detections"] == sum(map(len, found)) == told["agreement"]["equal"] > 0
    assert told["accuracy"]["detector"] == sdk.evaluate(data, detector, workers=0)["bbox/AP"]
    assert set(told["milliseconds"]) == {"detector", "file"}
    assert {"torch", "onnxruntime"} <= told["versions"].keys()
    page = certificate_file(certified).with_suffix(".html").read_text()
    assert "passed" in page
    assert told["file"]["sha256"] in page


def test_a_certificate_is_repeated_without_the_detector(certified, data):
    again = sdk.verify(certified, data)
    assert again.passed
    assert again.checks[0].name == "the file that was certified"
    assert again.agreement.detections > 0


def test_the_certificate_of_a_damaged_file_fails(damaged, detector, data):
    made = sdk.verify(damaged, data)
    failed = {check.name for check in made.checks if not check.passed}
    assert failed >= {"the file that was certified", "detections equal to the detector's"}
    assert "FAILED" in str(made)
    assert cli.main(["verify", str(damaged), "shapes:4"]) == 1  # other data than the certificate's
    # Who has the detector needs no certificate, and a new one says what is wrong.
    certificate_file(damaged).unlink()
    with pytest.raises(RunError, match="no certificate beside it"):
        sdk.verify(damaged, data)
    assert not sdk.verify(damaged, data, model=detector).passed
    assert json.loads(certificate_file(damaged).read_text())["passed"] is False


def test_a_file_that_cannot_be_read_is_told_from_the_certified_one(damaged, data):
    damaged.write_bytes(damaged.read_bytes()[:5000])
    with pytest.raises(RunError, match="not a readable ONNX file") as raised:
        sdk.verify(damaged, data)
    assert "not the file that was certified" in raised.value.__notes__[0]


def test_other_data_and_broken_certificates_are_named(certified, tmp_path, data):
    with pytest.raises(SdkError, match="certificate is of other data"):
        sdk.verify(certified, Shapes(3, size=(96, 128)))
    path = shutil.copy(certified, tmp_path / "model.onnx")
    certificate_file(path).write_text("{}")
    with pytest.raises(RunError, match="not a certificate"):
        sdk.verify(path, data)


def test_an_old_certificate_does_not_stay_beside_a_new_file(detector, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    certificate_file(path).write_text("{}")
    monkeypatch.setattr("sdk.verbs.export.write", lambda trained, path, *_: path.write_bytes(b"a file"))
    sdk.export(detector, path)
    assert path.exists()
    assert not certificate_file(path).exists()


def test_agreement_pairs_each_detection_once():
    ours = Detections(
        torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40], [50, 50, 60, 60]]),
        torch.tensor([0.9, 0.8, 0.7]),
        torch.tensor([0, 1, 1]),
    )
    moved = replace(ours, boxes=ours.boxes + torch.tensor([[0.01], [0.2], [0.0]]))
    limits = LIMITS["float32"]
    found = agreement(ours, moved[torch.tensor([2, 1, 0])], limits)
    assert (found.detections, found.equal, found.unmatched) == (3, 2, 0)
    assert found.box[0] == pytest.approx(0.2, abs=1e-5)
    other = replace(ours, labels=torch.tensor([0, 0, 1]))
    assert agreement(ours, other, limits).unmatched == 1
    assert agreement(ours, ours[:0], limits).share == 0
    assert agreement(ours[:0], ours[:0], limits).share == 1


def test_verbs_take_the_file_like_a_run(certified, detector, data):
    ours, theirs = (sdk.evaluate(data, what, workers=0) for what in (detector, certified))
    assert theirs["bbox/AP"] == ours["bbox/AP"]
    compared = sdk.compare(detector, certified, dataset=data, workers=0, resamples=20)
    assert compared.models[1].parameters is None
    assert compared.models[1].megabytes == pytest.approx(certified.stat().st_size / 1e6)
    assert not compared.worse
    assert len(sdk.predict(data[0].image, certified)) == len(sdk.predict(data[0].image, detector))


def test_predictions_of_a_file_are_explored(certified, detector, data):
    pytest.importorskip("fiftyone")
    from sdk.fiftyone.predictions import predictions_of, source_of

    ours, theirs = (predictions_of(data, what, workers=0) for what in (detector, certified))
    np.testing.assert_allclose(theirs.boxes, ours.boxes, rtol=0, atol=0.05)
    assert source_of(certified) is not None


def test_verify_in_the_shell(certified, capsys, data):
    assert cli.main(["verify", str(certified), "shapes:4"]) == 1
    assert "other data" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_fewer_bits(precision, certified, detector, data, tmp_path):
    path = shutil.copy(certified, tmp_path / "model.onnx")
    if precision == "float16":
        to_float16(path)
    else:
        to_int8(path, [data[index].image for index in range(len(data))])
    # Weights are most of such a file.
    assert path.stat().st_size < certified.stat().st_size * {"float16": 0.6, "int8": 0.4}[precision]
    sdk.verify(path, data, model=detector)
    told = json.loads(certificate_file(path).read_text())
    assert told["file"]["precision"] == precision
    assert told["agreement"]["detections"] > 0
    assert told["agreement"]["unmatched"] < told["agreement"]["detections"] / 2
    assert sdk.runtime.load(path).about["precision"] == precision
    if precision == "float16":
        assert told["agreement"]["equal"] > 0.5 * told["agreement"]["detections"]


def test_what_has_no_precision_is_refused(detector, tmp_path):
    with pytest.raises(SdkError, match="int8 needs images"):
        sdk.export(detector, tmp_path / "model.onnx", precision="int8")
    with pytest.raises(SdkError, match=r"float16 is for files that end in \.onnx"):
        sdk.export(detector, tmp_path / "model.pt2", precision="float16")
    with pytest.raises(SdkError, match="precision: expected float32, float16, int8"):
        sdk.export(detector, tmp_path / "model.onnx", precision="int4")
    assert list(tmp_path.iterdir()) == []


def test_openvino(certified, detector, data, tmp_path):
    pytest.importorskip("openvino")
    path = tmp_path / "model.xml"
    entry = next(one for one in onnx.load(certified).metadata_props if one.key == METADATA)
    write_openvino(certified, path, entry.value)
    assert sdk.verify(path, data, model=detector).passed
    assert sdk.verify(path, data).passed
    weights = path.with_suffix(".bin")
    damaged = bytearray(weights.read_bytes())
    # A change of the weights alone is a change of the file too.
    damaged[len(damaged) // 2] ^= 1
    weights.write_bytes(damaged)
    assert not sdk.verify(path, data).checks[0].passed
    path.write_text("<net/>")
    with pytest.raises(RunError, match="not a readable network of OpenVINO"):
        sdk.predict(data[0].image, path)
