import numpy as np
import pytest

from sdk.datasets import Coco, DatasetError, DetectionDataset, Shapes


def test_drawings_depend_on_seed_split_and_index():
    first, again = Shapes(12, size=(48, 80)), Shapes(30, size=(48, 80))
    for index in range(12):
        np.testing.assert_array_equal(first[index].image, again[index].image)
    assert not np.array_equal(first[0].image, Shapes(12, size=(48, 80), seed=1)[0].image)
    assert not np.array_equal(first[0].image, first.val[0].image)
    assert isinstance(first, DetectionDataset)
    assert first.train is first
    assert len(first.val) == 3
    assert first.val.train.fingerprint == first.fingerprint != first.val.fingerprint


def test_boxes_and_masks_agree():
    dataset = Shapes(40)
    labels = set()
    for index in range(40):
        sample, info = dataset[index], dataset.info(index)
        assert info.labels.tolist() == sample.labels.tolist()
        masks = sample.masks.decode()
        assert masks.sum(0).max(initial=0) <= 1
        for mask, box in zip(masks, sample.boxes):
            ys, xs = np.nonzero(mask)
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            colors = sample.image[mask == 1]
            assert (colors == colors[0]).all()
        labels |= set(sample.labels.tolist())
    assert labels == {0, 1, 2, 3}
    assert any(len(dataset.info(i).labels) == 0 for i in range(40))


def test_written_as_coco(tmp_path):
    dataset = Shapes(8, classes=("circle", "cross"))
    written = Coco(dataset.write_coco(tmp_path))
    assert list(written.splits) == ["train", "val", "test"]
    for own, read in zip(dataset.splits.values(), written.splits.values()):
        assert read.classes == own.classes
        for index in range(len(own)):
            a, b = own[index], read[index]
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.boxes, b.boxes)
            np.testing.assert_array_equal(a.labels, b.labels)
            np.testing.assert_array_equal(a.masks.decode(), b.masks.decode())
        assert read.fingerprint == own.fingerprint


@pytest.mark.parametrize("wrong", [{"classes": ("circle", "cat")}, {"split": "x"}, {"count": 0}, {"size": (4, 4)}])
def test_wrong_settings(wrong):
    with pytest.raises(DatasetError):
        Shapes(**{"count": 4, **wrong})
