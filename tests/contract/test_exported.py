"""Every method is exported and finds the same at numbers and sizes of images that the export did not see, or is
refused with a reason."""

import pytest
from exported_detectors import REPRESENTATIVES, exported

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.mark.long
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_exported(name, tmp_path):
    outcome = exported(name, tmp_path)
    if outcome.agreement is None:
        assert outcome.reason
        pytest.skip(outcome.reason)
    assert outcome.agreement.detections > 0
    assert outcome.agreement.share >= 0.99, outcome.agreement
