"""Several datasets as one."""

from __future__ import annotations

import numpy as np
import pytest

from sdk.datasets import DatasetError, Shapes, mix
from sdk.datasets.index import columns_of
from sdk.datasets.loader import Loader


class Renamed:
    """Shapes whose classes have other names, in another order."""

    def __init__(self, dataset: Shapes, classes: tuple[str, ...]) -> None:
        self.dataset, self.classes, self.category_ids = dataset, classes, (1, 2, 3, 4)
        self.fingerprint = dataset.fingerprint + "renamed"

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        return self.dataset[index]

    def info(self, index):
        return self.dataset.info(index)


def test_classes_are_matched_by_name_and_synonym():
    first, second = Shapes(6), Renamed(Shapes(4, size=(48, 64)), ("cross", "disc", "square", "star"))
    mixed = mix([first, second], {"disc": "circle"})
    assert mixed.classes == ("circle", "square", "triangle", "cross", "star")
    wanted = np.array([3, 0, 1, 4])
    for i in range(4):
        np.testing.assert_array_equal(mixed[6 + i].labels, wanted[second[i].labels])
        np.testing.assert_array_equal(mixed.info(6 + i).labels, wanted[second.info(i).labels])
    np.testing.assert_array_equal(columns_of(mixed).labels[: len(columns_of(first))], columns_of(first).labels)
    assert len({mixed[i].image_id for i in range(10)}) == 10


def test_shares_decide_how_often_each_is_seen():
    mixed = mix([(Shapes(40), 0.25), (Shapes(10, size=(48, 64)), 0.75)])
    loader = Loader(mixed, batch_size=1, shuffle=True, sampler=mixed.sampler)
    from_first = np.mean([np.mean(loader.order(epoch) < 40) for epoch in range(200)])
    assert from_first == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mix([]), "nothing to mix"),
        (lambda: mix([(Shapes(2), 1.0), Shapes(2)]), "shares of some datasets only"),
        (lambda: mix([(Shapes(2), 0.0)]), "not a share"),
        (lambda: mix([Shapes(2)], {"disk": "circle"}), "no class of the datasets|no class of any of the datasets"),
    ],
)
def test_what_cannot_be_mixed(make, message):
    with pytest.raises(DatasetError, match=message):
        make()
