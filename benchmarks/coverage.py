"""How often the intervals of ``sdk.compare`` hold the true difference, beside those of a bootstrap without repeats.

    python -m benchmarks.coverage [--pairs 500] [--images 200] [--resamples 2000]

Simulated data sets are drawn from one population: images with objects, and two detectors that find each with some
probability, with false detections beside them. Hard images are hard for both. The true difference of AP50 is that on
images without number, taken as 200,000 of them. In the second half both detectors are equal, and it is an error to call
AP50 or recall significantly different.
"""

from __future__ import annotations

import argparse

import numpy as np

from sdk.evaluators.weighting import curve_cell, positives_of, recall_cell
from sdk.insight.comparison import chance, draws, holm, interval


def detector(draw: np.random.Generator, objects: np.ndarray, hard: np.ndarray, skill: float) -> tuple[np.ndarray, ...]:
    """(D,) images, scores and truth of what a detector says. objects, hard: (M,)."""
    images = np.repeat(np.arange(len(objects)), objects)
    found = draw.random(len(images)) < 1 / (1 + np.exp(-(skill - hard[images])))
    true = images[found]
    false = np.repeat(np.arange(len(objects)), draw.poisson(0.8 + 0.4 * (hard > 0)))
    scores = np.concatenate([draw.normal(1.2 - 0.4 * hard[true]), draw.normal(0.0, 1.0, len(false))])
    return np.concatenate([true, false]), scores, np.arange(len(scores)) < len(true)


def cells(seed: int, images: int, skills: tuple[float, float]) -> list:
    """The curve and the recall of each of two detectors on the same images."""
    draw = np.random.default_rng(seed)
    hard = draw.normal(size=images)
    objects = draw.poisson(1 + np.exp(0.4 * hard))
    where = np.repeat(np.arange(images), objects)
    zeros = np.zeros(len(where), np.int64)
    positives = positives_of(where, zeros, np.ones(len(where), bool), 1, images)
    made = []
    for skill in skills:
        found, scores, true = detector(draw, objects, hard, skill)
        order = np.argsort(-scores, kind="stable")
        every, zeros = np.ones(len(found), bool), np.zeros(len(found), np.int64)
        curve = curve_cell(order, zeros, found, true, every, positives, "levels")
        made.append((curve, recall_cell(zeros, found, true, positives)))
    return made


def differences(pair: list, weights: np.ndarray) -> np.ndarray:
    """(2, B) AP and recall of the second less those of the first. weights: (M, B)."""
    return np.concatenate([two.values(weights) - one.values(weights) for one, two in zip(*pair)])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pairs", type=int, default=500)
    options.add_argument("--images", type=int, default=200)
    options.add_argument("--resamples", type=int, default=2000)
    given = options.parse_args()
    ones = np.ones((given.images, 1))
    for title, skills in (("different", (0.8, 1.1)), ("equal", (0.8, 0.8))):
        many = 200_000
        exact = 0.0 if title == "equal" else float(differences(cells(10**6, many, skills), np.ones((many, 1)))[0, 0])
        covered, without_repeats, called = 0, 0, 0
        for seed in range(given.pairs):
            pair = cells(seed, given.images, skills)
            blocks = list(draws(given.images, given.resamples, seed)())
            samples = np.concatenate([differences(pair, block) for block in blocks], axis=1)
            low, high = interval(samples[0], 0.95)
            covered += low is not None and high is not None and low <= exact <= high
            seen = differences(pair, ones)[:, 0]
            called += bool(holm(np.array([chance(float(d), own) for d, own in zip(seen, samples)]), 0.05).any())
            once = np.concatenate([differences(pair, np.minimum(block, 1.0))[0] for block in blocks])
            low, high = np.quantile(once, [0.025, 0.975])
            without_repeats += low <= exact <= high
        print(
            f"{title}: true difference {exact:+.4f}; the 95 % interval holds it in {covered / given.pairs:.1%} of "
            f"{given.pairs} pairs (without repeated images {without_repeats / given.pairs:.1%}); "
            f"called different in {called / given.pairs:.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
