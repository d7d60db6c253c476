import numpy as np
import pytest

from sdk.datasets import DatasetError, Lvis, Shapes
from sdk.datasets.base import ImageInfo
from sdk.datasets.sample import Sample
from sdk.datasets.sampling import (
    AttributeShares,
    ClassBalanced,
    ClassShares,
    InstanceRepeatFactor,
    OnlyWithObjects,
    Product,
    Repeated,
    RepeatFactor,
    epoch_order,
    exposure,
    group_by_aspect_ratio,
    image_classes,
    occurrences,
    sampler_of,
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


def listed(*images: tuple[int, ...], classes: int = 3):
    """A dataset whose images show these labels."""
    samples = [
        Sample(
            np.zeros((4, 4, 3), np.uint8),
            np.tile(np.array([[0, 0, 2, 2]], np.float32), (len(labels), 1)),
            np.array(labels, np.int64),
            np.zeros(len(labels), bool),
            image_id=number,
        )
        for number, labels in enumerate(images)
    ]

    class Own:
        category_ids = tuple(range(1, classes + 1))
        fingerprint = str(images)

        def __len__(self):
            return len(samples)

        def __getitem__(self, index):
            return samples[index]

        def info(self, index):
            return ImageInfo(index, (4, 4), samples[index].labels)

    dataset = Own()
    dataset.classes = tuple("abcdefgh"[:classes])  # type: ignore[attr-defined]
    return dataset


def test_instance_repeat_factors_by_hand():
    # a: 3 of 4 images, 4 of 12 objects; b: 1 of 4, 6 of 12; c: 1 of 4, 2 of 12.
    dataset = listed((0, 0), (0,), (0, 1, 1, 1, 1, 1, 1), (2, 2))
    factor = [max(1.0, np.sqrt(0.5 / np.sqrt(i / 4 * o / 12))) for i, o in ((3, 4), (1, 6), (1, 2))]
    found = InstanceRepeatFactor(0.5).repeats(dataset)
    np.testing.assert_allclose(found, [factor[0], factor[0], max(factor[0], factor[1]), factor[2]])


def test_class_shares_are_met_where_images_allow():
    dataset = listed(*[(0,)] * 80, *[(1,)] * 15, *[(2,)] * 5)
    repeats = ClassShares({"b": 0.5, "c": 0.25}).repeats(dataset)
    shown = [repeats[:80].sum(), repeats[80:95].sum(), repeats[95:].sum()]
    np.testing.assert_allclose(shown, [25, 50, 25], rtol=1e-6)
    # Classes that always stand together cannot be shown apart.
    bound = ClassShares({"a": 0.9, "b": 0.1}).repeats(listed(*[(0, 1)] * 10, classes=2))
    np.testing.assert_allclose(bound, 1)


def test_attribute_shares():
    dataset = listed(*[(0,)] * 4)
    repeats = AttributeShares(["day", "day", "day", "night"], {"day": 1, "night": 1}).repeats(dataset)
    np.testing.assert_allclose(repeats, [2 / 3, 2 / 3, 2 / 3, 2])
    np.testing.assert_allclose(AttributeShares(lambda i: i % 2).repeats(dataset), 1)
    with pytest.raises(DatasetError, match="not one value an image"):
        AttributeShares(["day"]).repeats(dataset)
    with pytest.raises(DatasetError, match="dusk"):
        AttributeShares(["day"] * 4, {"dusk": 1}).repeats(dataset)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("uniform", None),
        ("class_balanced", ClassBalanced()),
        ("repeat_factor", RepeatFactor(0.001)),
        ("repeat_factor=0.02", RepeatFactor(0.02)),
        ("instance_repeat_factor=0.02", InstanceRepeatFactor(0.02)),
        ("with_objects", OnlyWithObjects()),
        ({"a": 0.5}, ClassShares({"a": 0.5})),
        (RepeatFactor(0.1), RepeatFactor(0.1)),
    ],
)
def test_samplings_by_name(given, expected):
    assert sampler_of(given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("class_balance", r"found 'class_balance'; expected .*\(class_balanced\?\)"),
        ("repeat_factor=much", "no threshold"),
        (ClassBalanced, r"a class, not a sampler.*expected ClassBalanced\(\)"),
        (3, "no sampling.*int"),
        ({"a": 1.5}, "not shares"),
    ],
)
def test_what_is_no_sampling(given, message):
    with pytest.raises(DatasetError, match=message):
        sampler_of(given)


def test_an_unknown_class_of_shares_is_named():
    with pytest.raises(DatasetError, match="found 'z'"):
        ClassShares({"z": 0.5}).repeats(listed((0,)))


@pytest.mark.parametrize("sampler", [ClassBalanced, OnlyWithObjects, RepeatFactor, Repeated])
def test_samplers_are_made_without_a_dataset(sampler):
    with pytest.raises(DatasetError, match=r"without a dataset.*sdk\.fit"):
        sampler(Shapes(3))
