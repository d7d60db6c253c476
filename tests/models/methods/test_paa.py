"""PAA's mixture against scikit-learn's, and its voting candidate by candidate."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import box_iou

from sdk.models.methods.paa import fit_two_gaussians, likely_positives, ordered_in_groups, vote
from sdk.models.structures import Detections


def test_mixture_is_that_of_scikit_learn():
    mixture = pytest.importorskip("sklearn.mixture")
    generator = torch.Generator().manual_seed(0)
    rows = [
        torch.rand(n, generator=generator) * 3 + (torch.rand(n, generator=generator) > 0.6) * 4 for n in range(2, 40)
    ]
    values = torch.zeros(len(rows), 40)
    valid = torch.zeros(len(rows), 40, dtype=torch.bool)
    for index, row in enumerate(rows):
        values[index, : len(row)], valid[index, : len(row)] = row, True
    first, likelihood = fit_two_gaussians(values, valid)
    for index, row in enumerate(rows):
        x = row.double().numpy()[:, None]
        model = mixture.GaussianMixture(
            2,
            weights_init=[0.5, 0.5],
            means_init=[[x.min()], [x.max()]],
            precisions_init=[[1.0], [1.0]],
            covariance_type="diag",
        ).fit(x)
        count = len(row)
        assert first[index, :count].tolist() == (model.predict(x) == 0).tolist()
        torch.testing.assert_close(
            likelihood[index, :count], torch.from_numpy(model.score_samples(x)), rtol=1e-4, atol=1e-4
        )
        assert not first[index, count:].any()


def test_order_in_groups():
    values, groups = torch.tensor([3.0, 1.0, 2.0, 0.0, 5.0]), torch.tensor([1, 0, 1, 1, 0])
    order, place = ordered_in_groups(values, groups)
    assert order.tolist() == [1, 4, 3, 2, 0]
    assert place.tolist() == [0, 1, 0, 1, 2]


def test_positives():
    # Object 0 has two clear groups of losses, object 1 one candidate only, object 2 none.
    losses = torch.tensor([0.10, 0.12, 0.11, 9.0, 9.1, 9.2, 0.1])
    objects, levels = torch.tensor([0, 0, 0, 0, 0, 0, 1]), torch.tensor([0, 0, 1, 0, 1, 1, 0])
    positive = likely_positives(losses, objects, levels, 3)
    assert positive[0]
    assert not positive[3:].any()
    # At most one candidate of each level takes part.
    assert not likely_positives(losses, objects, levels, 3, per_level=1)[1]


def test_voting():
    torch.manual_seed(0)
    low = torch.rand(40, 2) * 30
    boxes = torch.cat((low, low + 10 + torch.rand(40, 2) * 20), dim=1)
    scores, labels = torch.rand(40), torch.arange(40) % 3
    found = Detections(boxes[[0, 7, 20]], scores[[0, 7, 20]], labels[[0, 7, 20]])
    got = vote(found, boxes, scores, labels)
    for index in range(3):
        total, weighted = 0.0, torch.zeros(4)
        for candidate in range(40):
            overlap = float(box_iou(found.boxes[index, None], boxes[candidate, None]))
            if labels[candidate] == found.labels[index] and overlap > 0.01:
                weight = math.exp(-((1 - overlap) ** 2) / 0.025) * float(scores[candidate])
                total, weighted = total + weight, weighted + weight * boxes[candidate]
        torch.testing.assert_close(got[index], weighted / total, rtol=1e-4, atol=1e-3)


def test_voting_of_nothing():
    empty = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert vote(empty, torch.rand(3, 4), torch.rand(3), torch.tensor([0, 1, 1])).shape == (0, 4)
    flat = Detections(torch.tensor([[5.0, 5.0, 5.0, 9.0]]), torch.ones(1), torch.zeros(1, dtype=torch.int64))
    torch.testing.assert_close(vote(flat, flat.boxes, flat.scores, flat.labels), flat.boxes)
