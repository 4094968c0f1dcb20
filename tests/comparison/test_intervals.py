"""Intervals against a loop that draws, pools and scores as the text says."""

import math

import numpy as np
import pytest
import torch

from scripts.comparison.intervals import Interval, intervals, pooled_reliability, score_names
from scripts.comparison.scoring import Scores
from shared.metrics import bach_score_of_confusion, binary_scores, ods_of_counts, reliability_of_map_histograms
from shared.metrics.ranking import roc_auc_of_histograms

CASES = np.array(["b", "a", "a", "c", "b", "d", "a"])


def random_scores(seed, num_classes=2, cases=CASES):
    rng = np.random.default_rng(seed)
    count = len(cases)
    histograms = rng.integers(0, 9, (count, 2, 256))
    boundary = np.repeat(rng.integers(5, 40, (count, 99, 1)), 4, axis=2)
    # Matched pixels are as many on both sides, and no more than there are.
    boundary[..., 0] = boundary[..., 2] = boundary[..., 0] - rng.integers(0, 5, (count, 99))
    boundary[..., 3] = boundary[:, :1, 3]
    boundary[..., [0, 2]] = np.minimum(boundary[..., [0, 2]], boundary[..., [3]])
    return Scores(
        counts=rng.integers(1, 50, (count, 4)),
        tissue=histograms,
        everywhere=histograms + rng.integers(0, 3, histograms.shape),
        region_f=rng.random(count),
        boundary=boundary,
        confusion=rng.integers(0, 20, (count, num_classes, num_classes)),
        cases=cases,
    )


def naive_scores(scores, chosen):
    """Every score of the images of these indices, one by one, with the project's own functions."""
    pooled = binary_scores(torch.from_numpy(scores.counts[chosen].sum(0)))
    return {
        **{name: pooled[name].item() for name in ("sensitivity", "specificity", "accuracy", "f1", "iou")},
        "region_f": scores.region_f[chosen].mean(),
        "ods": ods_of_counts(scores.boundary[chosen].sum(0)).f,
        "auc_tissue": roc_auc_of_histograms(torch.from_numpy(scores.tissue[chosen].sum(0))).item(),
        "auc_all": roc_auc_of_histograms(torch.from_numpy(scores.everywhere[chosen].sum(0))).item(),
        "ece": reliability_of_map_histograms(torch.from_numpy(scores.tissue[chosen].sum(0))).ece,
        "bach_score": bach_score_of_confusion(torch.from_numpy(scores.confusion[chosen].sum(0))).item(),
    }


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_against_a_loop(num_seeds):
    scores, num_draws = [random_scores(seed, num_classes=3) for seed in range(num_seeds)], 60
    found = intervals(scores, num_draws, seed=7)
    names = np.unique(CASES)
    rng = np.random.default_rng(7)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=num_draws)
    trainings = rng.integers(num_seeds, size=(num_draws, num_seeds))
    draws = {name: [] for name in found}
    for of_cases, of_seeds in zip(counts, trainings, strict=True):
        chosen = [
            index
            for name, times in zip(names, of_cases, strict=True)
            for _ in range(times)
            for index in np.flatnonzero(name == CASES)
        ]
        for name in found:
            draws[name].append(np.mean([naive_scores(scores[seed], chosen)[name] for seed in of_seeds]))
    everything = np.arange(len(CASES))
    for name, interval in found.items():
        assert interval.mean == pytest.approx(np.mean([naive_scores(one, everything)[name] for one in scores]))
        assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(draws[name], [2.5, 97.5])))
    assert list(found) == list(score_names(3))


def test_the_curve_is_of_all_trainings():
    one, other = random_scores(0), random_scores(1)
    curve = pooled_reliability([one, other])
    assert curve.counts.sum() == one.tissue.sum() + other.tissue.sum()
    assert pooled_reliability([one]).ece == pytest.approx(intervals([one], num_draws=1)["ece"].mean)


def test_one_patient_has_no_interval():
    found = intervals([random_scores(0, cases=np.array(["a"] * 7))], num_draws=10)
    assert all(math.isnan(interval.low) and not math.isnan(interval.mean) for interval in found.values())
    assert "bach_score" not in found


def test_draws_without_tumour_are_left_out():
    """Of two patients one has no tumour: a quarter of the draws have a sensitivity of 0/0."""
    scores = random_scores(0, cases=np.array(["a"] * 3 + ["b"] * 4))
    scores.counts[3:, [0, 2]] = 0
    found = intervals([scores], num_draws=200)["sensitivity"]
    # The other draws all have that of the first patient.
    assert found.low == pytest.approx(found.mean)
    assert found.high == pytest.approx(found.mean)


def test_the_same_draws_for_every_method():
    first, again = (intervals([random_scores(3)], num_draws=50)["iou"] for _ in range(2))
    assert first == again
    assert isinstance(first, Interval)


def test_without_a_true_boundary_there_is_no_ods():
    scores = random_scores(1)
    scores.boundary[..., [0, 2, 3]] = 0
    assert math.isnan(intervals([scores], num_draws=5)["ods"].mean)
