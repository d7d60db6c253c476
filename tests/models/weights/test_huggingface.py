"""Files of Hugging Face's ``transformers``, as its hub holds them, load from a path."""

import pytest
import torch
from safetensors.torch import save_file

from sdk import models
from sdk.models.structures import ImageBatch
from sdk.models.weights import WeightsError

transformers = pytest.importorskip("transformers")
NAME = "rtdetr_r18vd_6x_coco"


@pytest.fixture(scope="module")
def oracle():
    torch.manual_seed(0)
    body = transformers.RTDetrResNetConfig(
        depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic", out_indices=[2, 3, 4]
    )
    config = transformers.RTDetrConfig(
        backbone_config=body, encoder_in_channels=[128, 256, 512], hidden_expansion=0.5, decoder_layers=3, num_labels=80
    )
    return transformers.RTDetrForObjectDetection(config).eval()


def as_on_the_hub(state):
    """The names of the published files, which that library changes when it reads them."""
    renamed = {
        key.replace("o_proj", "out_proj").replace(".mlp.fc", ".fc").replace("encoder.aifi.", "encoder.encoder."): value
        for key, value in state.items()
    }
    twice = {key.removeprefix("model.decoder."): value.clone() for key, value in renamed.items() if "_embed.0." in key}
    return renamed | twice


@pytest.mark.parametrize("layout", ["saved", "hub"])
@torch.no_grad()
def test_a_file_gives_the_same_detections(oracle, layout, tmp_path):
    if layout == "saved":
        oracle.save_pretrained(tmp_path)
    else:
        save_file(as_on_the_hub(oracle.state_dict()), str(tmp_path / "model.safetensors"))
    ours = models.create(NAME, weights=tmp_path / "model.safetensors").eval()
    images = torch.rand(1, 3, 128, 128)
    expected = oracle(images)
    found = ours.predict(ImageBatch(images, [(128, 128)]))[0]
    scores = expected.logits.sigmoid().flatten().sort(descending=True).values[: len(found)]
    torch.testing.assert_close(found.scores, scores, rtol=1e-4, atol=1e-4)


def test_another_size_is_told(oracle, tmp_path):
    oracle.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="entries"):
        models.create("rtdetr_r34vd_6x_coco", weights=tmp_path / "model.safetensors")


@torch.no_grad()
def test_another_class_count_starts_class_layers_fresh(oracle, tmp_path, caplog):
    oracle.save_pretrained(tmp_path)
    ours = models.create(NAME, num_classes=3, weights=tmp_path / "model.safetensors")
    assert "start fresh" in caplog.text
    assert torch.equal(ours.bbox_head.reg_branches[0][0].bias, oracle.model.decoder.bbox_embed[0].layers[0].bias)
