import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk.datasets.transforms import Preprocessing
from sdk.datasets.transforms.preprocessing import fitted_size

CAFFE = {"mean": (103.53, 116.28, 123.675), "std": (1.0, 1.0, 1.0), "channels": "bgr"}
SSD = Preprocessing((300, 300), keep_ratio=False, std=(1.0, 1.0, 1.0), divisor=1)
DETR = Preprocessing(divisor=1)
YOLO = Preprocessing((320, 320), mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
YOLACT = Preprocessing((550, 550), keep_ratio=False, mean=(123.68, 116.78, 103.94), std=(58.4, 57.12, 57.38), divisor=1)
CORNERNET = Preprocessing(None, divisor=128, centered=True)
ROWS = {
    "faster_rcnn_r50_fpn_1x_coco": Preprocessing(),
    "faster_rcnn_r50_caffe_fpn_1x_coco": Preprocessing(**CAFFE),
    "ssd300_coco": SSD,
    "yolov3_d53_320_273e_coco": YOLO,
    "yolov3_d53_mstrain-608_273e_coco": replace(YOLO, size=(608, 608)),
    "yolact_r50_1x8_coco": YOLACT,
    "cornernet_hourglass104_mstest_10x5_210e_coco": CORNERNET,
    "detr_r50_8x2_150e_coco": DETR,
    "faster_rcnn_r50_fpn_1x_voc0712": Preprocessing((1000, 600)),
    "mask_rcnn_r50_fpn_1x_cityscapes": Preprocessing((2048, 1024)),
    "retinanet_r50_nasfpn_crop640_50e_coco": Preprocessing((640, 640), divisor=128),
    "mask_rcnn_r50_fpn_15e_deepfashion": Preprocessing((750, 1101)),
    "ssd300_wider_face": SSD,
    "deformable_detr_r50_16x2_50e_coco": DETR,
    "mask_rcnn_x101_32x8d_fpn_1x_coco": Preprocessing(
        mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395), channels="bgr"
    ),
    "fovea_r50_fpn_4x4_1x_coco": Preprocessing(),
    "faster_rcnn_s50_fpn_syncbn-backbone+head_mstrain-range_1x_coco": Preprocessing(
        mean=(123.68, 116.779, 103.939), std=(58.393, 57.12, 57.375)
    ),
}


@pytest.fixture(scope="module")
def reference(shared):
    return json.loads((shared / "parity" / "preprocess.json").read_text())


def test_every_reference_row_is_checked(reference):
    assert set(reference["rows"]) == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_reference_pixels(name, reference, shared):
    preprocessing = ROWS[name]
    for file, expected in reference["rows"][name].items():
        image = cv2.imread(str(shared / reference["images"] / file))[:, :, ::-1]
        resized, scale = preprocessing.resize(np.ascontiguousarray(image))
        pixels = preprocessing.pixels(resized)
        assert resized.shape[:2] == tuple(expected["valid"])
        assert pixels.shape == tuple(expected["shape"])
        assert pixels.dtype == np.float32
        assert scale == pytest.approx(expected["scale"][:2], rel=1e-6)
        top, left = preprocessing.offset(resized.shape[:2])
        if "border" in expected:
            h, w = resized.shape[:2]
            assert [top, top + h, left, left + w] == expected["border"]
        else:
            assert (top, left) == (0, 0)
        channel, y, x = np.array(expected["at"]).T
        off = np.abs(pixels[channel, y, x] - np.array(expected["values"])) * np.array(preprocessing.std)[channel]
        assert off.max() <= 1 + 1e-3
        assert (off > 1e-2).mean() <= 0.02
        assert pixels.mean() == pytest.approx(expected["mean"], abs=0.02 / min(preprocessing.std))
        assert pixels.std() == pytest.approx(expected["std"], rel=1e-4)


@given(
    st.integers(1, 4000),
    st.integers(1, 4000),
    st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
)
def test_fitted_size_stays_within_its_bounds(h, w, bounds):
    new = fitted_size((h, w), bounds)
    assert min(new) >= 1
    assert max(new) <= max(bounds)
    assert min(new) <= min(bounds)
    # One of the two bounds is met.
    assert max(new) == max(bounds) or min(new) == min(bounds)


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([None, (1333, 800), (512, 300)]), st.booleans())
def test_scaled_sizes(h, w, size, keep_ratio):
    preprocessing = Preprocessing(size=size, keep_ratio=keep_ratio)
    if size is None:
        assert preprocessing.resized_size((h, w)) == (h, w)
    elif not keep_ratio:
        assert preprocessing.resized_size((h, w)) == (size[1], size[0])
    once, twice = preprocessing.resized_size((h, w)), preprocessing.resized_size((h, w), 2.0)
    assert all(abs(large - 2 * small) <= 1 or small == 1 for small, large in zip(once, twice))


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_centered_padding_sets_the_low_bits(h, w):
    """CornerNet pads an edge to edge | 127, which is one less than the next multiple of 128."""
    assert CORNERNET.padded_size((h, w)) == (h | 127, w | 127)


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_normalize_is_the_formula_in_float64(channels):
    image = np.random.default_rng(0).integers(0, 256, (17, 23, 3), dtype=np.uint8)
    preprocessing = Preprocessing(mean=(1.0, 20.0, 30.0), std=(2.0, 3.0, 5.0), channels=channels)
    ordered = image if channels == "rgb" else image[:, :, ::-1]
    expected = (ordered.astype(np.float64) - [1, 20, 30]) / [2, 3, 5]
    np.testing.assert_allclose(preprocessing.normalize(image), expected.transpose(2, 0, 1), atol=1e-5)


def test_normalize_writes_into_a_part_of_a_batch():
    image = np.random.default_rng(0).integers(0, 256, (17, 23, 3), dtype=np.uint8)
    batch = np.zeros((2, 3, 32, 32), np.float32)
    returned = Preprocessing().normalize(image, batch[1, :, 5:22, 2:25])
    assert np.shares_memory(returned, batch)
    np.testing.assert_allclose(batch[1, :, 5:22, 2:25], Preprocessing().normalize(image), atol=1e-6)
    batch[1, :, 5:22, 2:25] = 0
    assert not batch.any()


def test_images_of_another_kind_are_refused():
    for image in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"expected an image \(H, W, 3\) of uint8"):
            Preprocessing().resize(image)
    with pytest.raises(ValueError, match=r"expected out \(3, 4, 4\) float32"):
        Preprocessing().normalize(np.zeros((4, 4, 3), np.uint8), np.zeros((3, 4, 4)))


@pytest.mark.parametrize(
    "fields", [{"size": (0, 3)}, {"channels": "RGB"}, {"std": (0.0, 1.0, 1.0)}, {"divisor": 0}], ids=str
)
def test_wrong_settings_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields)) if "std" not in fields else "deviations"):
        Preprocessing(**fields)
