import json
import os
import pickle

import numpy as np
import pytest

from sdk.datasets import Coco, DatasetError
from sdk.datasets.errors import DatasetWarning
from sdk.datasets.proposals import read_proposals

IDS = np.array([7, 3, 12])
LISTS = [np.array([[1, 2, 5, 6, 0.9], [0, 0, 3, 3, 0.1]]), np.zeros((0, 5)), np.array([[2, 2, 9, 9, 0.5]])]


def forms(folder):
    for protocol in (2, 4, 5):
        with open(folder / f"{protocol}.pkl", "wb") as stream:
            pickle.dump([a.astype(np.float32) for a in LISTS], stream, protocol=protocol)
        yield folder / f"{protocol}.pkl"
    with open(folder / "ids.pkl", "wb") as stream:
        order = [2, 0, 1]
        boxes, scores = [LISTS[i][:, :4] for i in order], [LISTS[i][:, 4] for i in order]
        pickle.dump({"ids": [12, 7, 3], "boxes": boxes, "scores": scores}, stream)
    yield folder / "ids.pkl"
    np.savez(folder / "a.npz", *LISTS)
    yield folder / "a.npz"
    (folder / "a.json").write_text(json.dumps([a.tolist() for a in LISTS]))
    yield folder / "a.json"
    results = [
        {"image_id": int(i), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for i, rows in zip(IDS, LISTS)
        for x1, y1, x2, y2, score in rows.tolist()
    ]
    (folder / "results.json").write_text(json.dumps(results[::-1]))
    yield folder / "results.json"


def test_every_form(tmp_path):
    for file in forms(tmp_path):
        found = read_proposals(file, IDS)
        for index, expected in enumerate(LISTS):
            np.testing.assert_allclose(found[index], expected, atol=1e-6, err_msg=str(file))


def test_in_samples(coco_folder, tmp_path):
    for file in forms(tmp_path):
        np.testing.assert_allclose(Coco(coco_folder, proposals=file)[0].proposals, LISTS[0][:, :4])
    (coco_folder / "train" / "7.png").unlink()
    with pytest.warns(DatasetWarning):
        dataset = Coco(coco_folder, proposals=file, on_fault="skip")
    np.testing.assert_allclose(dataset[1].proposals, LISTS[2][:, :4])


class Hostile:
    def __reduce__(self):
        return os.system, ("echo hostile",)


@pytest.mark.parametrize(
    "content", [Hostile(), [Hostile()], {"ids": Hostile()}, [print] * 3, np.array([None, 1], object)]
)
def test_pickles_run_nothing(tmp_path, content, capfd):
    file = tmp_path / "x.pkl"
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(DatasetError, match=r"x\.pkl"):
        read_proposals(file, IDS)
    assert "hostile" not in capfd.readouterr().out


@pytest.mark.parametrize(
    "content", [[], {}, 5, [[1, 2]] * 3, [[[1, 2, 3]]] * 3, [[[1, 2, 3, "x"]]] * 3, [{}], [[[1, 2, 3, np.nan]]] * 3,
                [[]] * 2, [{"image_id": [], "bbox": [1, 2, 3, 4]}]]
)  # fmt: skip
def test_other_content(tmp_path, content):
    file = tmp_path / "x.json"
    file.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"x\.json"):
        read_proposals(file, IDS)


@pytest.mark.parametrize("ending", ["pkl", "npy", "npz", "json", "txt"])
def test_noise(tmp_path, ending):
    file = tmp_path / f"x.{ending}"
    for seed in range(20):
        file.write_bytes(np.random.default_rng(seed).bytes(100))
        with pytest.raises(DatasetError, match=r"x\."):
            read_proposals(file, IDS)
