"""Intervals against a loop that draws, pools and scores as the text says, and what they rest on."""

import math
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import special, stats

from scripts.comparison.scores.intervals import Interval, _noise_of_both, draw, intervals, pooled_reliability, score_names
from scripts.comparison.scores.scoring import Scores
from shared.metrics import binary_scores, class_scores, ods_of_counts, reliability_of_map_histograms
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
        **_of_classes(scores.confusion[chosen].sum(0)),
    }


def with_means_of_cases(scores, chosen):
    """The same, and the means over the cases that the images are of, each case as often as it is drawn."""
    each = [naive_scores(scores, np.flatnonzero(scores.cases == case)) for case in scores.cases[chosen]]
    # An image of a case stands for the case: those with more images do not count more.
    weights = np.array([1 / (scores.cases == case).sum() for case in scores.cases[chosen]])
    names = [name for name in ("iou", "auc_tissue", "auc_all", "macro_f1", "bach_score") if name in each[0]]
    means = {f"{name}_of_cases": np.average([one[name] for one in each], weights=weights) for name in names}
    return naive_scores(scores, chosen) | means


def _of_classes(confusion):
    found = {name: score.item() for name, score in class_scores(torch.from_numpy(confusion)).items()}
    names = ("macro_f1", "mean_iou", "bach_score", *(f"f1_{index}" for index in range(len(confusion))))
    return {"class_accuracy": found["accuracy"]} | {name: found[name] for name in names}


def drawn_naively(scores, num_draws, seed, stream=""):
    """Every score on draws of cases, without and with the spread of trainings, one draw after the other."""
    names = np.unique(CASES)
    counts = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=num_draws)
    draws = []
    for of_cases in counts:
        chosen = [
            index
            for name, times in zip(names, of_cases, strict=True)
            for _ in range(times)
            for index in np.flatnonzero(name == CASES)
        ]
        of_trainings = [with_means_of_cases(one, chosen) for one in scores]
        draws.append({name: np.mean([one[name] for one in of_trainings]) for name in of_trainings[0]})
    whole = [with_means_of_cases(one, np.arange(len(CASES))) for one in scores]
    means = {name: np.mean([one[name] for one in whole]) for name in whole[0]}
    errors = {name: np.std([one[name] for one in whole], ddof=1) / len(whole) ** 0.5 if len(whole) > 1 else 0 for name in means}
    rng = np.random.default_rng([seed, zlib.crc32(stream.encode())])
    moved = rng.standard_t(len(scores) - 1, num_draws) if len(scores) > 1 else np.zeros(num_draws)
    return means, {name: np.array([one[name] for one in draws]) for name in means}, {n: errors[n] * moved for n in means}


# Student's t with 3 degrees of freedom over the normal quantile, and n over n - 1, for 4 cases; of printed tables.
STRETCH = 3.1824463 / 1.9599640 * (4 / 3) ** 0.5


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_against_a_loop(num_seeds):
    """Student's t about the log odds of the mean, with the standard error of the draws by the delta method."""
    scores, num_draws = [random_scores(seed, num_classes=3) for seed in range(num_seeds)], 60
    found = intervals(scores, num_draws, seed=7)
    means, draws, _ = drawn_naively(scores, num_draws, 7)
    for name, interval in found.items():
        mean, freedom, trainings = means[name], 3.0, 0.0
        assert interval.mean == pytest.approx(mean)
        if name in ("macro_f1", "mean_iou"):  # the sum of three parts, each of which rests on all cases
            parts = [np.var(draws[f"f1_{index}"]) for index in range(3)]
            freedom = sum(parts) ** 2 / sum(part**2 / 3 for part in parts)
        cases = np.std(draws[name]) * (1 + 1 / freedom) ** 0.5
        if num_seeds > 1:
            of_each = [with_means_of_cases(one, np.arange(len(CASES)))[name] for one in scores]
            trainings = np.std(of_each, ddof=1) / 3**0.5
            freedom = (cases**2 + trainings**2) ** 2 / (cases**4 / freedom + trainings**4 / 2)
        half = stats.t.ppf(0.975, freedom) * (cases**2 + trainings**2) ** 0.5 / (mean * (1 - mean))
        ends = special.expit(special.logit(mean) + np.array([-half, half]))
        assert (interval.low, interval.high) == pytest.approx(tuple(ends), abs=1e-6)
    assert set(found) == set(score_names("abc", ordered=True)) == {*score_names("abc"), "bach_score", "bach_score_of_cases"}


def test_more_cases_make_no_interval_wider():
    """One case in a hundred, and in five hundred, without a pixel that is right; and three trainings, one of them perfect."""
    lows = []
    for number in (100, 500):
        counts = np.tile([100, 0, 0, 100], (number, 1))
        counts[0] = 0, 0, 100, 100
        cases = np.array([f"{index:03}" for index in range(number)])
        lows.append(draw([replace(random_scores(0, cases=cases), counts=counts)]).interval("sensitivity").low)
    # Of binomial counts, exactly, 0.946 and 0.989.
    assert lows == pytest.approx([0.93, 0.987], abs=0.006)
    lows = []
    for number in (30, 300):
        cases = np.array([f"{index:03}" for index in range(number)])
        counts = [np.tile([90, wrong, 10, 100 - wrong], (number, 1)) for wrong in (1, 1, 0)]
        scores = [replace(random_scores(0, cases=cases), counts=one) for one in counts]
        lows.append(draw(scores).interval("specificity").low)
    # Student's t with two degrees of freedom: 0.9933 - 4.303 * 0.0033 = 0.979, and on the scale of log odds less.
    assert lows == pytest.approx([0.945, 0.945], abs=0.003)


def test_the_auc_of_cases_is_the_mean_of_their_own():
    """Case a ranks its two pixels rightly, case b its four wrongly, and case c has no tumour.

    Pooled, of the 2 x 5 pairs of a tumour and a normal pixel the tumour of a is ahead in all five, and that of b of the normal
    pixels at 0 and at 50 alone: 7 of 10.
    """
    histograms = np.zeros((3, 2, 256), np.int64)
    histograms[0, 0, 0] = histograms[0, 1, 255] = 1
    histograms[1, 0, 200], histograms[1, 1, 100] = 3, 1
    histograms[2, 0, 50] = 1
    blank = random_scores(0, cases=np.array(["a", "b", "c"]))
    found = draw([replace(blank, tissue=histograms, everywhere=histograms)], 10)
    for name in ("auc_tissue", "auc_all"):
        assert found.mean(f"{name}_of_cases") == pytest.approx((1 + 0) / 2)
        assert found.mean(name) == pytest.approx(7 / 10)
        assert found.of_each_case[name] == pytest.approx([1, 0, math.nan], nan_ok=True)


def test_a_difference_against_a_loop():
    """Of two methods, one of them trained once, over the same draws."""
    one, other = [random_scores(seed) for seed in range(3)], [random_scores(9)]
    found = {name: draw(scores, 60, seed=7, stream=name) for name, scores in (("one", one), ("other", other))}
    (means, draws, noise), (others, other_draws, _) = (
        drawn_naively(part, 60, 7, name) for part, name in ((one, "one"), (other, ""))
    )
    for name in score_names(["normal", "tumour"]):
        difference = found["one"].difference(found["other"], name)
        mean = means[name] - others[name]
        assert difference.mean == pytest.approx(mean)
        drawn = mean + STRETCH * (draws[name] - other_draws[name] - mean) + noise[name]
        assert (difference.low, difference.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=1e-6)
        # The smaller error is the better one; draws are counted as they are drawn, not stretched.
        drawn = draws[name] - other_draws[name] + noise[name]
        ahead = drawn < 0 if name == "ece" else drawn > 0
        assert difference.ahead == pytest.approx(ahead.mean())
        assert found["other"].difference(found["one"], name).ahead == pytest.approx(1 - ahead.mean())


def test_draws_in_which_both_methods_are_the_same_count_half():
    """Better on one case of eight, and the same on the others: never behind."""
    cases = np.array(list("abcdefgh"))
    one, better = np.tile([40, 10, 10, 40], (8, 1)), np.tile([40, 10, 10, 40], (8, 1))
    better[0] = 50, 0, 0, 50
    scores = [draw([replace(random_scores(0, cases=cases), counts=counts)]) for counts in (one, better)]
    without = (7 / 8) ** 8
    assert scores[1].difference(scores[0], "accuracy").ahead == pytest.approx(1 - without / 2, abs=0.02)
    assert scores[0].difference(scores[1], "accuracy").ahead == pytest.approx(without / 2, abs=0.02)


def test_the_distance_of_two_methods_trainings_is_of_student_t_too():
    """With degrees of freedom by Welch's formula from both spreads, and those of one method where the other has none."""
    scores = {name: [random_scores(seed) for seed in range(first, first + 3)] for name, first in (("one", 0), ("other", 5))}
    one, other = (draw(of_method, 4000, stream=name) for name, of_method in scores.items())
    errors = [draws.trainings["iou"].std(ddof=1) / 3**0.5 for draws in (one, other)]
    whole = np.hypot(*errors)
    freedom = whole**4 / sum(error**4 / 2 for error in errors)
    noise = _noise_of_both(one, other, "iou")
    assert stats.kstest(noise / whole, "t", (freedom,)).pvalue > 0.05
    assert _noise_of_both(other, one, "iou") == pytest.approx(-noise)
    alone = draw(scores["other"][:1], 4000)
    assert (_noise_of_both(one, alone, "iou") == errors[0] * one.noise).all()


def test_scores_rest_on_the_cases_on_which_they_are_known():
    """Case a has both kinds of pixels, b and c tumour alone; d is normal without a false alarm, and e with one."""
    counts = np.array([[5, 1, 2, 9], [4, 0, 3, 0], [4, 0, 3, 0], [0, 0, 0, 9], [0, 2, 0, 9]])
    histograms = np.zeros((5, 2, 256), np.int64)
    histograms[[0, 3, 4], 0, 9] = histograms[[0, 1, 2], 1, 99] = 1
    histograms[3, 0, 9] = 0
    scores = replace(random_scores(0, cases=np.array(list("abcde"))), counts=counts, tissue=histograms, everywhere=histograms)
    found = draw([scores], 200)
    names = ("accuracy", "sensitivity", "specificity", "iou", "iou_of_cases", "auc_tissue", "auc_tissue_of_cases")
    assert [found.num_known(name) for name in names] == [5, 3, 3, 3, 3, 2, 1]
    # Of one case nothing is known about others.
    assert math.isnan(found.interval("auc_tissue_of_cases").low)
    # Of a difference too, whoever has a false alarm: another method on d, this one on e.
    other = draw([replace(scores, counts=counts + np.array([[0, 0, 0, 0]] * 3 + [[0, 1, 0, -1], [0, -2, 0, 2]]))], 200)
    drawn = found.of_cases["iou"] - other.of_cases["iou"]
    # Not of draws without tumour.
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    # Of the three cases with tumour, Student's t with two degrees of freedom.
    stretch, mean = 4.3026527 / 1.9599640 * (3 / 2) ** 0.5, found.mean("iou") - other.mean("iou")
    difference = found.difference(other, "iou")
    assert (difference.low, difference.high) == pytest.approx((mean + stretch * (low - mean), mean + stretch * (high - mean)))


def test_scores_of_classes_rest_on_the_cases_that_have_them():
    """Class 1 is in cases a and b, class 2 in b alone; in d normal pixels are taken for class 2, which tells nothing of it."""
    confusion = np.zeros((4, 3, 3), np.int64)
    confusion[:, 0, 0], confusion[:2, 1, 1], confusion[1, 2, 1], confusion[3, 0, 2] = 50, 9, 4, 3
    counts = np.stack(
        [np.array([confusion[i, 1:, 1:].sum(), confusion[i, 0, 1:].sum(), 0, confusion[i, 0, 0]]) for i in range(4)]
    )
    scores = replace(random_scores(0, 3, cases=np.array(list("abcd"))), counts=counts, confusion=confusion)
    found = draw([scores], 200)
    names = ("class_accuracy", "macro_f1", "mean_iou", "f1_0", "f1_1", "f1_2", "macro_f1_of_cases")
    assert [found.num_known(name) for name in names] == [4, 2, 2, 4, 2, 1, 4]
    # A mean over classes is known no better than each of them.
    assert [found.freedom(name) for name in names] == [3, 0, 0, 3, 1, 0, 3]
    assert all(math.isnan(found.interval(name).low) for name in ("macro_f1", "mean_iou", "f1_2"))
    assert math.isnan(found.difference(draw([random_scores(1, 3, cases=np.array(list("abcd")))], 200), "macro_f1").low)


def test_a_draw_without_the_class_says_nothing_of_it():
    """Two of twelve cases have class 2, and every case has a pixel that is wrongly called so: no draw without it counts as 0."""
    rng, cases = np.random.default_rng(0), np.array([f"{index:02}" for index in range(12)])
    confusion = np.zeros((12, 3, 3), np.int64)
    confusion[:, 0, 0], confusion[:, 1, 1], confusion[:, 1, 0] = 900, 90, rng.integers(5, 9, 12)
    confusion[:2, 2, 2], confusion[:2, 2, 1] = 90, (5, 9)
    clean, stray = confusion.copy(), confusion.copy()
    stray[:, 0, 2] = 1
    drawn = []
    for one in (clean, stray):
        counts = np.stack([one[:, 1:, 1:].sum((1, 2)), one[:, 0, 1:].sum(1), one[:, 1:, 0].sum(1), one[:, 0, 0]], 1)
        drawn.append(draw([replace(random_scores(0, 3, cases=cases), counts=counts, confusion=one)]))
    for name in ("macro_f1", "mean_iou", "f1_2"):
        without, with_strays = (one.of_cases[name] for one in drawn)
        assert np.isnan(with_strays).mean() == pytest.approx((10 / 12) ** 12, abs=0.03)
        assert np.nanmin(with_strays) > 0.8
        assert 0 < np.nanmax(without - with_strays) < 0.1
    # A class that the test data lack is left out of the means, whatever is said of it.
    none = stray.copy()
    none[:2, 2] = 0
    without = draw([replace(random_scores(0, 3, cases=cases), confusion=none)], 10)
    two = class_scores(torch.from_numpy(none.sum(0)))
    assert without.mean("macro_f1") == pytest.approx((two["f1_0"] + two["f1_1"]) / 2)
    assert two["macro_f1"] < 0.7


def test_no_iou_of_draws_without_tumour():
    """Three of twelve cases have tumour, and all have false alarms."""
    counts = np.tile([0, 50, 0, 900], (12, 1))
    counts[:3, 0], counts[:3, 2] = 900, (60, 80, 100)
    scores = replace(random_scores(0, cases=np.array([f"{index:02}" for index in range(12)])), counts=counts)
    found = draw([scores])
    for name in ("iou", "f1"):
        assert np.isnan(found.of_cases[name]).mean() == pytest.approx((9 / 12) ** 12, abs=0.015)
        assert np.nanmin(found.of_cases[name]) > 0.5


def test_bach_score_of_a_case_that_is_rightly_all_background():
    confusion = np.zeros((2, 4, 4), np.int64)
    confusion[0, 0, 0], confusion[1, 3, [0, 3]] = 500, 250
    found = draw([replace(random_scores(0, 4, cases=np.array(["a", "b"])), confusion=confusion)], 10)
    assert found.of_each_case["bach_score"] == pytest.approx([1.0, 0.5])
    assert found.mean("bach_score_of_cases") == pytest.approx(0.75)


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
    # The other draws all have that of the first patient, and nothing is an interval of no width.
    assert found.mean == pytest.approx(scores.counts[:3, 0].sum() / scores.counts[:3, [0, 2]].sum())
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_the_same_draws_for_every_method():
    first, again = (intervals([random_scores(3)], num_draws=50)["iou"] for _ in range(2))
    assert first == again
    assert isinstance(first, Interval)


def test_without_a_true_boundary_there_is_no_ods():
    scores = random_scores(1)
    scores.boundary[..., [0, 2, 3]] = 0
    assert math.isnan(intervals([scores], num_draws=5)["ods"].mean)
