import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as oracle

from sdk.datasets import DatasetError
from sdk.datasets.masks import (
    BitMasks,
    MixedMasks,
    PolygonMasks,
    RLEMasks,
    area,
    bounding_box,
    check_polygons,
    check_rle,
    decode,
    encode,
    encode_polygons,
)
from sdk.datasets.sample import Masks


def random_bits(seed: int, count: int = 3, size: tuple[int, int] = (17, 23)) -> np.ndarray:
    return (np.random.default_rng(seed).random((count, *size)) < 0.4).astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6), st.floats(0, 1))
def test_round_trip_and_plain_counts(h, w, seed, density):
    mask = (np.random.default_rng(seed).random((h, w)) < density).astype(np.uint8)
    rle = encode(mask)
    assert rle["counts"] == oracle.encode(np.asfortranarray(mask))["counts"]
    np.testing.assert_array_equal(decode(rle), mask)
    assert area(rle) == mask.sum()
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat])))
    counts = np.diff(np.concatenate([[0], changes, [h * w]])).tolist()
    assert check_rle({"size": [h, w], "counts": counts}) == rle["counts"]
    assert check_rle({"size": [h, w], "counts": rle["counts"].decode()}, (h, w)) == rle["counts"]
    if mask.any():
        ys, xs = np.nonzero(mask)
        assert bounding_box(rle) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=30), st.integers(-3, 70000), st.integers(-3, 70000))
def test_arbitrary_bytes_never_reach_the_decoder_unchecked(counts, h, w):
    try:
        mask = decode({"size": [h, w], "counts": counts})
    except DatasetError:
        return
    assert mask.shape == (h, w)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60), st.integers(0, 255))
def test_one_changed_byte_is_found_or_harmless(seed, place, value):
    rle = encode(random_bits(seed)[0])
    counts = bytearray(rle["counts"])
    counts[place % len(counts)] = value
    try:
        mask = decode({"size": rle["size"], "counts": bytes(counts)})
    except DatasetError:
        return
    assert mask.shape == (17, 23)
    assert mask.max() <= 1


@pytest.mark.parametrize(
    "rle",
    [
        None,
        {},
        {"size": [5, 5]},
        {"size": [5], "counts": [25]},
        {"size": [5, 5], "counts": [24]},
        {"size": [5, 5], "counts": [26]},
        {"size": [5, 5], "counts": [-1, 26]},
        {"size": [5, 5], "counts": [2.5, 22.5]},
        {"size": [5, 5], "counts": ["a"]},
        {"size": [5, 5], "counts": [2**70]},
        {"size": [5, 5], "counts": "é"},
        {"size": [5, 5], "counts": ""},
        {"size": [5, 5], "counts": 7},
        {"size": [0, 5], "counts": []},
        {"size": [10**6, 10**6], "counts": [10**12]},
        {"size": ["5", 5], "counts": [25]},
    ],
)
def test_malformed_run_lengths(rle):
    with pytest.raises(DatasetError):
        check_rle(rle)


@pytest.mark.parametrize(
    "polygons",
    [
        "text", {"a": 1}, [1, 2, 3, 4, 5, 6], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], [[]], [["a"] * 6], [[None] * 6],
        [[float("nan")] * 6], [[0, 0, float("inf"), 5, 5, 5]], [[0, 0, 1e30, 0, 5, 5]], [[0, 0, -500, 0, 5, 5]],
        [[True] * 6], [[[1, 2], [3]]], [[10**400] * 6],
    ],
)  # fmt: skip
def test_malformed_polygons(polygons):
    with pytest.raises(DatasetError):
        check_polygons(polygons, (40, 60))


def test_polygons_far_outside_are_cut_first():
    far = np.array([[-1e7, -1e7], [1e7, -1e7], [1e7, 1e7], [-1e7, 1e7]])
    assert decode(encode_polygons([far], (30, 40))).all()
    beside = far + np.array([3e7, 0])
    assert not decode(encode_polygons([beside], (30, 40))).any()
    half = np.array([[20.0, -1e6], [1e6, -1e6], [1e6, 1e6], [20, 1e6]])
    expected = np.zeros((30, 40), np.uint8)
    expected[:, 20:] = 1
    np.testing.assert_array_equal(decode(encode_polygons([half], (30, 40))), expected)


def rectangles(size=(20, 30)) -> tuple[PolygonMasks, np.ndarray]:
    """Axis-parallel rectangles as polygons and as pixels."""
    boxes = [(2, 3, 12, 9), (0, 0, 30, 20), (20, 10, 28, 18)]
    bits = np.zeros((len(boxes), *size), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(bits, boxes):
        mask[y1:y2, x1:x2] = 1
    polygons = tuple((np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], float),) for x1, y1, x2, y2 in boxes)
    return PolygonMasks(polygons, size), bits


def variants() -> list[tuple[Masks, np.ndarray]]:
    polygons, bits = rectangles()
    runs = RLEMasks(tuple(encode(mask)["counts"] for mask in bits), (20, 30))
    mixed = MixedMasks((polygons[np.array([0, 2])], runs[np.array([1])]), ((0, 0), (1, 0), (0, 1)))
    return [(polygons, bits), (runs, bits), (BitMasks(bits), bits), (mixed, bits)]


@pytest.mark.parametrize(("masks", "bits"), variants(), ids=lambda v: type(v).__name__)
def test_geometry_equals_that_of_pixels(masks, bits):
    assert isinstance(masks, Masks)
    assert masks.size == (20, 30)
    np.testing.assert_array_equal(masks.decode(), bits)
    np.testing.assert_array_equal(masks.flip("horizontal").decode(), bits[:, :, ::-1])
    np.testing.assert_array_equal(masks.flip("vertical").decode(), bits[:, ::-1])
    np.testing.assert_array_equal(masks.flip("diagonal").decode(), bits[:, ::-1, ::-1])
    doubled = masks.resize((40, 60))
    assert doubled.size == (40, 60)
    np.testing.assert_array_equal(doubled.decode(), bits.repeat(2, 1).repeat(2, 2))
    canvas = np.zeros((3, 50, 60), np.uint8)
    canvas[:, 5:25, 7:37] = bits
    np.testing.assert_array_equal(masks.place(5, 7, (50, 60)).decode(), canvas)
    np.testing.assert_array_equal(masks.place(-2, -3, (10, 12)).decode(), bits[:, 2:12, 3:15])
    keep = np.array([False, True, True])
    np.testing.assert_array_equal(masks[keep].decode(), bits[keep])
    np.testing.assert_array_equal(masks[np.array([2, 0])].decode(), bits[[2, 0]])
    assert masks[np.zeros(3, bool)].decode().shape == (0, 20, 30)
    chained = masks.resize((40, 60)).flip("horizontal").place(-5, 4, (30, 50))[np.array([1])].decode()
    pixels = np.zeros((30, 50), np.uint8)
    pixels[:, 4:] = bits[1].repeat(2, 0).repeat(2, 1)[5:35, ::-1][:, :46]
    np.testing.assert_array_equal(chained[0], pixels)
    with pytest.raises(ValueError, match="sideways"):
        masks.flip("sideways")
