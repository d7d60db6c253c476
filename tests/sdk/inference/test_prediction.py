"""What a prediction says of itself."""

from __future__ import annotations

import torch

from sdk.inference.prediction import Prediction


def test_a_prediction_is_short_and_plain():
    boxes = torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 8]])
    made = Prediction(boxes, torch.tensor([0.75, 0.5]), torch.tensor([1, 0]), classes=("<b>", "cat"))
    assert repr(made) == "Prediction(2 objects: 1 cat, 1 <b>)"
    assert made.to_dict()["objects"][0] == {"class": "cat", "score": 0.75, "box": [0, 1, 2, 3]}
    assert made.to_pandas()[["class", "y2"]].values.tolist() == [["cat", 3], ["<b>", 8]]
    assert "<b>" not in made._repr_html_()
    assert repr(made[:0]) == "Prediction(0 objects)"
