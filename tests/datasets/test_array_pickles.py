import pickle

import numpy as np
import pytest

from sdk.datasets.array_pickles import NotArrays, load_arrays

ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    np.arange(6, dtype=">i4").reshape(2, 3),
    np.zeros((0, 5)),
    np.array([True, False]),
    np.arange(10, dtype=np.uint8)[::2],
]


@pytest.mark.parametrize("protocol", range(6))
def test_what_was_written_is_read(protocol):
    content = {"boxes": ARRAYS, "ids": [1, -3, 10**30, "a", None, True, 2.5], 5: (b"x", ("y",), np.float32(1.5))}
    found = load_arrays(pickle.dumps(content, protocol))
    assert found["ids"] == content["ids"]
    assert found[5] == content[5]
    for ours, theirs in zip(found["boxes"], ARRAYS, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_bytes_of_python_2():
    # ndarray of one little-endian float32 as Python 2 wrote it: the data is a text of single bytes.
    data = pickle.dumps([np.array([1.5], np.float32)], protocol=2)
    old = b"\x80\x02]cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01\x85"
    old += b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    old += b"U\x04\x00\x00\xc0\x3ftba."
    assert load_arrays(old)[0].tolist() == load_arrays(data)[0].tolist() == [1.5]


def test_lists_that_hold_each_other_end():
    bomb: list = []
    for _ in range(60):
        bomb = [bomb, bomb]
    endless: list = []
    endless.append(endless)
    for content in (bomb, endless):
        with pytest.raises(NotArrays, match="hold each other"):
            load_arrays(pickle.dumps(content))


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # of the damaged texts
@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_damaged_files_are_refused_or_read(count):
    originals = [pickle.dumps({"ids": [1, 2], "boxes": ARRAYS}, protocol) for protocol in range(6)]
    rng = np.random.default_rng(count)
    refused = 0
    for number in range(count):
        data = bytearray(originals[number % 6])
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        if number % 5 == 0:
            del data[rng.integers(len(data)) :]
        try:
            load_arrays(bytes(data))
        except NotArrays:
            refused += 1
    assert count // 3 < refused < count
