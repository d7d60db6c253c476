from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from coco_files import tiny_coco, write_coco

from sdk.datasets import Coco, DatasetError, Loader, Shapes
from sdk.datasets.sampling import RepeatFactor


@dataclass(frozen=True)
class Noise:
    """Adds noise that depends on the generator alone."""

    def __call__(self, sample, rng):
        return replace(sample, image=sample.image ^ rng.integers(0, 256, sample.image.shape, dtype=np.uint8))


def facts(batches) -> list:
    """What tells one run from another."""
    return [[(s.image_id, int(s.image.sum(dtype=np.int64))) for s in batch] for batch in batches]


def loader(dataset, **settings) -> Loader:
    return Loader(dataset, transforms=(Noise(),), **{"batch_size": 4, "shuffle": True, "seed": 5, **settings})


def run(one: Loader, epochs, start=0) -> list:
    found = []
    for epoch in epochs:
        one.set_epoch(epoch, start_batch=start)
        found += facts(one)
        start = 0
    return found


def test_order_and_augmentation_are_functions_of_seed_and_epoch():
    dataset = Shapes(22)
    whole = run(loader(dataset), range(3))
    assert whole == run(loader(dataset), range(3))
    assert whole != run(loader(dataset, seed=6), range(3))
    assert whole[:5] != whole[5:10]
    assert run(loader(dataset), [2]) == whole[10:]


def test_workers_see_the_same():
    dataset = Shapes(22)
    assert run(loader(dataset, workers=2), range(2)) == run(loader(dataset), range(2))


def test_resumed_in_the_middle():
    dataset = Shapes(22)
    whole = run(loader(dataset, sampler=RepeatFactor(0.8), group_by_aspect_ratio=True), range(3))
    one = loader(dataset, sampler=RepeatFactor(0.8), group_by_aspect_ratio=True)
    length = len(one.steps(0))
    assert run(one, [1, 2], start=2) == whole[length + 2 :]
    with pytest.raises(ValueError, match="start_batch"):
        one.set_epoch(0, start_batch=length + 1)


@pytest.mark.parametrize("sampler", [None, RepeatFactor(0.8)])
@pytest.mark.parametrize("grouped", [False, True])
def test_resharded(sampler, grouped):
    dataset = Shapes(37)
    settings = {"sampler": sampler, "group_by_aspect_ratio": grouped}
    one = run(loader(dataset, batch_size=8, **settings), [4])
    ranks = [run(loader(dataset, batch_size=2, rank=r, world_size=4, **settings), [4]) for r in range(4)]
    assert [[sample for part in parts for sample in part] for parts in zip(*ranks)] == one
    assert len({len(rank) for rank in ranks}) == 1
    # One rank in two passes, and two ranks in two passes: the same images in each step.
    passes = run(loader(dataset, batch_size=4, passes=2, **settings), [4])
    assert [first + second for first, second in zip(passes[::2], passes[1::2], strict=True)] == one
    both = [run(loader(dataset, batch_size=2, rank=r, world_size=2, passes=2, **settings), [4]) for r in range(2)]
    quarters = zip(both[0][::2], both[1][::2], both[0][1::2], both[1][1::2], strict=True)
    steps = [[sample for part in parts for sample in part] for parts in quarters]
    assert steps == one


def test_ranks_are_disjoint_and_equal():
    dataset = Shapes(50)
    seen = [
        [i for step in loader(dataset, batch_size=3, rank=r, world_size=4).steps(0) for i, _ in step] for r in range(4)
    ]
    assert len({len(s) for s in seen}) == 1
    assert len(set().union(*seen)) == sum(len(s) for s in seen) == 48


def test_scoring_sees_every_image_once():
    dataset = Shapes(11)
    for world in (1, 2, 4):
        ranks = [Loader(dataset, batch_size=2, rank=r, world_size=world) for r in range(world)]
        seen = [i for one in ranks for step in one.steps(0) for i, _ in step]
        assert sorted(seen) == list(range(11))


def test_repeats_of_an_image_are_augmented_differently():
    dataset = Shapes(3)
    found = run(loader(dataset, batch_size=1, sampler=RepeatFactor(1.0), shuffle=False), [0])
    assert len(found) == len({tuple(batch[0]) for batch in found})
    small = loader(dataset, batch_size=8)
    assert [len(step) for step in small.steps(0)] == [8]
    assert len(set(small.steps(0)[0])) == 8


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    run(loader(Shapes(8)), range(2))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_arrive_as_they_were(coco_folder, workers):
    (coco_folder / "train" / "3.png").unlink()
    with pytest.raises(DatasetError) as caught:
        list(Loader(Coco(coco_folder), batch_size=2, workers=workers))
    assert caught.value.file == coco_folder / "train" / "3.png"
    assert "Traceback" not in str(caught.value)


def test_empty_split(tmp_path):
    content = tiny_coco()
    content["images"], content["annotations"] = [], []
    write_coco(tmp_path, content)
    with pytest.raises(DatasetError, match="no images"):
        Loader(Coco(tmp_path), batch_size=2)


def test_wrong_settings():
    for settings in ({"batch_size": 0}, {"rank": 2, "world_size": 2}, {"workers": -1}, {"passes": 0}):
        with pytest.raises(ValueError, match="Loader"):
            Loader(Shapes(4), **{"batch_size": 1, **settings})
