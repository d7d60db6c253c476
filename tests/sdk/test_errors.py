"""What is said when the classes of a model and a dataset differ."""

from __future__ import annotations

import pytest

from sdk.errors import ClassMismatch, require_same_classes


def test_equal_lists_pass():
    require_same_classes(("a", "b"), 2, ["a", "b"])
    require_same_classes(None, 2, ["a", "b"])


@pytest.mark.parametrize(
    ("model", "count", "dataset", "told"),
    [
        (None, 80, ["a", "b"], ["80 classes", "the dataset 2", "'a', 'b'", "num_classes=dataset"]),
        (("a", "b"), 2, ["b", "a"], ["same but their order is not", "'b' is label 1 of the model and 0"]),
        (("a", "b", "c"), 3, ["a", "c"], ["only the model has 'b'", "subset of the model's"]),
        (("a",), 1, ["a", "c"], ["only the dataset has 'c'", "subset of the dataset's", "classes=[...]"]),
        (("a", "x"), 2, ["a", "y"], ["only the model has 'x'", "only the dataset has 'y'"]),
    ],
)
def test_differences_are_named(model, count, dataset, told):
    with pytest.raises(ClassMismatch) as error:
        require_same_classes(model, count, dataset)
    for words in told:
        assert words in str(error.value)
