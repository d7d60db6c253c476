import numpy as np
import pytest

from sdk.datasets import DatasetError, Lvis, Shapes
from sdk.datasets.sampling import (
    ClassBalanced,
    OnlyWithObjects,
    Product,
    Repeated,
    RepeatFactor,
    epoch_order,
    exposure,
    group_by_aspect_ratio,
    image_classes,
    occurrences,
)


def test_repeat_factors_by_brute_force(shared):
    dataset = Lvis(shared / "data" / "lvis_val_100")
    shown = [set(dataset.info(i).labels.tolist()) for i in range(len(dataset))]
    frequency = {c: sum(c in s for s in shown) / len(shown) for c in set().union(*shown)}
    for threshold in (0.001, 0.05, 0.5):
        expected = [max([max(1.0, (threshold / frequency[c]) ** 0.5) for c in s], default=1.0) for s in shown]
        np.testing.assert_allclose(RepeatFactor(threshold).repeats(dataset), expected, rtol=1e-12)
    assert [set(image_classes(dataset)[i].tolist()) for i in range(len(dataset))] == shown


def test_fractions_fall_afresh_and_reach_their_mean():
    repeats = np.array([0.0, 0.25, 1.0, 1.7, 3.0])
    counts = np.array(
        [np.bincount(epoch_order(repeats, seed=3, epoch=e, shuffle=True), minlength=5) for e in range(4000)]
    )
    assert set(counts[:, 3]) == {1, 2}
    assert (counts[:, [0, 2, 4]] == [0, 1, 3]).all()
    # Five standard deviations of the mean of 4,000 coins.
    for place, p in ((1, 0.25), (3, 0.7)):
        assert abs(counts[:, place].mean() - repeats[place]) < 5 * (p * (1 - p) / 4000) ** 0.5
    again = epoch_order(repeats, seed=3, epoch=7, shuffle=True)
    np.testing.assert_array_equal(again, epoch_order(repeats, seed=3, epoch=7, shuffle=True))
    with pytest.raises(DatasetError):
        epoch_order(np.array([np.nan]), seed=0, epoch=0, shuffle=True)


def test_class_balance():
    dataset = Shapes(150, max_objects=2)
    found = exposure(dataset, ClassBalanced(), epochs=200)
    shown = [set(dataset.info(i).labels.tolist()) for i in range(len(dataset))]
    counts = np.array([sum(c in s for s in shown) for c in range(4)])
    weights = [sum(len(shown) / 4 / counts[c] for c in s) for s in shown]
    np.testing.assert_allclose(ClassBalanced().repeats(dataset), weights)
    assert abs(found.length - len(dataset)) < 3
    assert found.largest_deviation < 0.05
    natural = exposure(dataset, Repeated(1), epochs=1)
    np.testing.assert_array_equal(natural.realized, counts)
    assert found.target.std() / found.target.mean() < counts.std() / counts.mean()
    assert "circle" in str(found)


def test_samplers_hold_together():
    dataset = Shapes(40)
    both = Product((RepeatFactor(0.8), OnlyWithObjects())).repeats(dataset)
    empty = np.array([len(dataset.info(i).labels) == 0 for i in range(40)])
    assert empty.any()
    assert (both[empty] == 0).all()
    np.testing.assert_array_equal(both[~empty], RepeatFactor(0.8).repeats(dataset)[~empty])


def test_groups_of_one_shape():
    rng = np.random.default_rng(0)
    portrait = rng.random(103) < 0.3
    order = rng.permutation(103)
    grouped = group_by_aspect_ratio(order, portrait, 4)
    assert sorted(grouped) == sorted(order)
    mixed = [len(set(portrait[grouped[s : s + 4]])) for s in range(0, 103, 4)]
    assert max(mixed[:-2]) == 1
    for flag in (False, True):
        full = np.count_nonzero(portrait == flag) // 4 * 4
        kept = grouped[portrait[grouped] == flag][:full]
        np.testing.assert_array_equal(kept, order[portrait[order] == flag][:full])


def test_occurrences():
    order = np.array([3, 1, 3, 3, 0, 1])
    assert occurrences(order).tolist() == [0, 0, 1, 2, 0, 1]
    assert occurrences(np.zeros(0, np.int64)).tolist() == []
