"""Intervals of scores and of their differences, by resampling patients and by the spread of trainings."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import hypot, isnan, nan, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr, ndtri, stdtr, stdtrit

from shared.metrics import Reliability, reliability_of_map_histograms

from .pooled_scores import ECE_BINS, OF_CASES, means_of_cases, nanmean, pooled_scores, rests_on, sums_of_cases
from .scoring import Scores

Array = NDArray[np.float64]

NUM_DRAWS = 2000
LEVEL = 0.95
# Below this many cases an interval by resampling is itself uncertain.
FEW_CASES = 20
# Of these the lower one is ahead.
LOWER_IS_BETTER = frozenset({"ece"})
# Numbers that differ by less are the same, but for rounding.
_SAME = 1e-9
# Means over classes.
_OF_CLASSES = frozenset({"macro_f1", "mean_iou"})


@dataclass(frozen=True)
class Interval:
    """A score: its mean over seeds, and the interval that holds the true one; NaN where there is none."""

    mean: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Whether there are ends."""
        return not isnan(self.low)


@dataclass(frozen=True)
class Difference(Interval):
    """Difference of two methods in a score, over the same draws of cases.

    Attributes:
        ahead: share of the draws, of cases and of trainings, in which the method is better; those in which both are the same
            count half.
    """

    ahead: float


@dataclass(frozen=True)
class Draws:
    """The scores of a method's trainings on the test cases, and on draws of them.

    Attributes:
        trainings: score -> that of each training on all cases, ``(K,)``.
        of_cases: score -> on each draw of cases, mean over the trainings, ``(B,)``; the draws are the same for every method.
        noise: the mean of K trainings, in standard errors from the mean of all trainings that there could be, ``(B,)``; zeros
            where the spread of trainings is unknown.
        cases: names of those that are drawn.
        of_each_case: score -> on each case alone, mean over the trainings, ``(num_cases,)``.
        rests_on: score -> which cases it rests on, ``(num_cases,)``, see `rests_on`.
    """

    trainings: dict[str, Array]
    of_cases: dict[str, Array]
    noise: Array
    cases: tuple[str, ...]
    of_each_case: dict[str, Array]
    rests_on: dict[str, NDArray[np.bool_]]

    @property
    def num_cases(self) -> int:
        return len(self.cases)

    @property
    def num_trainings(self) -> int:
        return len(next(iter(self.trainings.values())))

    def mean(self, name: str) -> float:
        """A score on all cases, mean over the trainings."""
        return float(nanmean(self.trainings[name], axis=0))

    def num_known(self, name: str) -> int:
        """Number of the cases that a score rests on."""
        return int(self.rests_on[name].sum())

    def freedom(self, name: str) -> float:
        """Degrees of freedom of the spread of a score over cases: how many cases it rests on, less one.

        A mean over classes is the sum of one part for each class, which rests on the cases with that class: Welch's degrees of
        freedom of such a sum, with the spread of each class's F1. Zero where a class is in a single case.
        """
        if name not in _OF_CLASSES:
            return self.num_known(name) - 1.0
        of_each = {f1: self.num_known(f1) - 1 for f1 in self.of_cases if f1.startswith("f1_") and self.num_known(f1)}
        if not of_each or min(of_each.values()) < 1:
            return 0.0
        spreads = {f1: float(np.nanvar(self.of_cases[f1])) for f1 in of_each}
        squares = sum(spreads[f1] ** 2 / freedom for f1, freedom in of_each.items())
        return sum(spreads.values()) ** 2 / squares if squares else float(min(of_each.values()))

    def interval(self, name: str) -> Interval:
        """A score with its interval, whose ends are shares of 1: Student's t on the scale of log odds, see `draw`."""
        mean, freedom = self.mean(name), self.freedom(name)
        drawn = self.of_cases[name][~np.isnan(self.of_cases[name])]
        if freedom <= 0 or not 0 < mean < 1 or not len(drawn):
            return Interval(mean, nan, nan)
        # As far as the log odds of the mean change with it.
        slope = 1 / (mean * (1 - mean))
        of_cases = slope * float(drawn.std()) * sqrt((freedom + 1) / freedom)
        of_trainings, freedom_of_trainings = self._error(name)
        of_trainings *= slope
        error = hypot(of_cases, of_trainings)
        if error < _SAME:
            return Interval(mean, nan, nan)
        of_both = error**4 / (of_cases**4 / freedom + (of_trainings**4 / freedom_of_trainings if of_trainings else 0.0))
        low, high = expit(logit(mean) + stdtrit(of_both, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) * error)
        return Interval(mean, float(low), float(high))

    def difference(self, reference: Draws, name: str) -> Difference:
        """How far this method is from another, in a score, and in how many draws it is ahead.

        How far the difference of two means of trainings is from that of all trainings is Student's t too, with degrees of
        freedom from both spreads, see `_noise_of_both`.
        """
        # Both rest on the same cases, which the truth decides.
        mean, freedom = self.mean(name) - reference.mean(name), min(self.freedom(name), reference.freedom(name))
        of_cases, noise = self.of_cases[name] - reference.of_cases[name], _noise_of_both(self, reference, name)
        low, high = _ends(_stretched(of_cases, mean, freedom) + noise, freedom)
        known = (of_cases + noise)[~np.isnan(of_cases)] * (-1 if name in LOWER_IS_BETTER else 1)
        has_ends = freedom > 0 and len(known) and not isnan(mean)
        ahead = float((known > 0).mean() + (known == 0).mean() / 2) if has_ends else nan
        return Difference(mean, max(-1.0, low), min(1.0, high), ahead) if not isnan(low) else Difference(mean, nan, nan, ahead)

    def _error(self, name: str) -> tuple[float, int]:
        """Standard error of the mean over the trainings, 0 where their spread is unknown, and its degrees of freedom."""
        known = self.trainings[name][~np.isnan(self.trainings[name])]
        return (float(known.std(ddof=1)) / sqrt(len(known)) if len(known) > 1 else 0.0), len(known) - 1

    @cached_property
    def _normal_noise(self) -> Array:
        """The noise as normal numbers, in place of those of Student's t."""
        return np.asarray(ndtri(stdtr(self.num_trainings - 1, self.noise)))


def draw(scores: Sequence[Scores], num_draws: int = NUM_DRAWS, seed: int = 0, stream: str = "") -> Draws:
    """Every score of a method on draws of the test cases.

    A draw takes as many cases as there are, with replacement - a patient with all images or not at all; its score is the mean
    over the trainings of the score on these cases. The same `seed` draws the same cases for every method.

    Few patients vary less among themselves than those that they are drawn from, and Student's t says by how much, on as many
    patients as a score rests on: the IoU of 29 patients of whom 11 have tumour is as uncertain as 11 patients require. Of a
    difference the draws are stretched about the mean so that those of a mean of normal numbers have the ends of Student's t.
    The interval of a score is Student's t on the scale of log odds, with the standard error of the draws carried there by the
    delta method: scores near 1 are as high as they are until a hard patient comes, whom few patients may not have among them,
    so that percentiles end too high.

    And few trainings vary less among themselves: their mean is Student's t with K - 1 degrees of freedom away from that of all
    trainings. Both spreads are added, with Welch's degrees of freedom. Of one training the spread is unknown: its interval is
    over patients only.

    Simulated with 6 of 12, 11 of 29 and 29 of 29 patients with tumour, nominal 95 % of one training, where trainings do not
    differ, cover 95 to 98 % of sensitivities, specificities and AUCs of 0.7 to 0.8, 83 to 96 % of those up to 0.96, and 75 to
    88 % above, where so few patients cannot tell how often an error comes (percentiles: 90 to 96, 67 to 95, 52 to 87 %). Those
    of differences cover 92 to 100 %, and of two or three trainings that differ 88 to 98 %. Where most errors are false alarms,
    those of IoU cover up to 100 %.

    Args:
        scores: of each training's maps of the same test images, in the same order.
        num_draws: draws.
        seed: of the draws.
        stream: of the distances between trainings, which are others for every method: its name.

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3 (percentile intervals), with patients as the
        sampling units. Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 69, 2015
        (percentile intervals are too narrow for few of them). Log odds of an AUC: Pepe, The Statistical Evaluation of Medical
        Tests for Classification and Prediction, 2003, chapter 5. Degrees of freedom of a sum of two spreads: Welch, The
        Generalization of "Student's" Problem when Several Different Population Variances are Involved, Biometrika 34, 1947.
    """
    names, index = np.unique(scores[0].cases, return_inverse=True)
    num_cases = len(names)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(num_cases, np.full(num_cases, 1 / num_cases), size=num_draws).astype(np.float64)
    sums = [sums_of_cases(one, index, num_cases) for one in scores]
    each = [pooled_scores(one.total(np.eye(num_cases))) for one in sums]
    # The truth is the same for every training.
    classes = sums[0].of_case["confusion"].sum(axis=(0, 2)) > 0
    whole, drawn = (
        [pooled_scores(one.total(taken), classes) | means_of_cases(alone, taken) for one, alone in zip(sums, each, strict=True)]
        for taken in (np.ones((1, num_cases)), weights)
    )
    own = np.random.default_rng([seed, zlib.crc32(stream.encode())])
    return Draws(
        trainings={name: np.array([one[name][0] for one in whole]) for name in whole[0]},
        of_cases=_mean_scores(drawn),
        noise=own.standard_t(len(scores) - 1, num_draws) if len(scores) > 1 else np.zeros(num_draws),
        cases=tuple(map(str, names)),
        of_each_case=_mean_scores(each),
        rests_on=rests_on(_mean_scores(each), sums[0]),
    )


def _mean_scores(found: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Mean of every score over several trainings."""
    return {name: nanmean(np.stack([one[name] for one in found]), axis=0) for name in found[0]}


def intervals(scores: Sequence[Scores], num_draws: int = NUM_DRAWS, seed: int = 0) -> dict[str, Interval]:
    """Every score of a method, mean over seeds, with its 95 % interval over patients and seeds, see `draw`.

    Draws in which a score is not known, without tumour or without one of the classes, are left out of it. Where a score rests on
    a single case there is no interval, nor where all draws are the same.

    Returns:
        intervals by the names of `score_names`.
    """
    found = draw(scores, num_draws, seed)
    return {name: found.interval(name) for name in found.trainings}


def best_method(draws: Mapping[str, Draws], name: str) -> str | None:
    """The method whose score is best; None where none has it."""
    known = {key: one.mean(name) for key, one in draws.items() if name in one.trainings and not isnan(one.mean(name))}
    sign = -1 if name in LOWER_IS_BETTER else 1
    return max(known, key=lambda key: sign * known[key]) if known else None


def pooled_reliability(scores: Sequence[Scores]) -> Reliability:
    """The reliability curve of tumour probability over all pixels in tissue, of all trainings together."""
    histograms = np.sum([one.tissue.sum(axis=0) for one in scores], axis=0)
    return reliability_of_map_histograms(torch.from_numpy(histograms), ECE_BINS)


def score_names(class_names: Sequence[str], ordered: bool = False) -> dict[str, str]:
    """Names of the scores and their titles, the most telling first.

    Args:
        class_names: class 0 is the background.
        ordered: whether each class is further from the first than the one before: only then has BACH's score a meaning.

    >>> list(score_names(["normal", "tumour"]))[:3]
    ['sensitivity', 'specificity', 'accuracy']
    >>> list(score_names(["normal", "benign", "invasive"]).values())[:7]
    ['Accuracy', 'Macro F1', 'F1, normal', 'F1, benign', 'F1, invasive', 'Mean IoU', 'Macro F1, mean of cases']
    """
    names = {
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
        "accuracy": "Accuracy",
        "f1": "F1",
        "iou": "IoU",
        f"iou{OF_CASES}": "IoU, mean of cases with tumour",
        "region_f": "Region F",
        "ods": "ODS",
        "auc_tissue": "AUC, tissue",
        f"auc_tissue{OF_CASES}": "AUC, tissue, mean of cases",
        "auc_all": "AUC with background",
        f"auc_all{OF_CASES}": "AUC with background, mean of cases",
        "ece": "ECE (0 is best)",
    }
    if len(class_names) < 3:
        return names
    first = {"class_accuracy": "Accuracy", "macro_f1": "Macro F1"}
    first |= {f"f1_{index}": f"F1, {name}" for index, name in enumerate(class_names)}
    first |= {"mean_iou": "Mean IoU"} | ({"bach_score": "BACH score"} if ordered else {})
    first |= {f"macro_f1{OF_CASES}": "Macro F1, mean of cases"}
    first |= {f"bach_score{OF_CASES}": "BACH score, mean of cases"} if ordered else {}
    return first | {name: f"{title}, not {class_names[0]}" for name, title in names.items()}


def _stretched(drawn: Array, mean: float, freedom: float) -> Array:
    """Draws of cases, as far from the mean as Student's t with so few degrees of freedom says."""
    if freedom <= 0:
        return drawn
    tail = 1 - (1 - LEVEL) / 2
    factor = float(stdtrit(freedom, tail) / ndtri(tail)) * sqrt((freedom + 1) / freedom)
    return np.asarray(mean + factor * (drawn - mean))


def _noise_of_both(one: Draws, other: Draws, name: str) -> Array:
    """Simulated change of each draw of a difference ``(B,)`` by other trainings of both methods.

    The distances of both, each of Student's t with K - 1 degrees of freedom, are not just added: for equal spreads the ends
    would lie 4.2 times as far out as those with Welch's degrees of freedom (2 trainings each; 1.7 times with 3, 1.2 with 5).
    Differences with the latter still cover 96 to 100 % in simulation. The degrees are K - 1 where the trainings of one method
    alone differ, 2 (K - 1) where those of both differ alike.
    """
    (error, freedom), (other_error, other_freedom) = one._error(name), other._error(name)
    if not error or not other_error:
        return np.asarray(error * one.noise - other_error * other.noise)
    both = hypot(error, other_error)
    of_sum = both**4 / (error**4 / freedom + other_error**4 / other_freedom)
    normal = (error * one._normal_noise - other_error * other._normal_noise) / both
    return np.asarray(both * stdtrit(of_sum, ndtr(normal)))


def _ends(drawn: Array, freedom: float) -> tuple[float, float]:
    """Percentiles of the draws that are numbers; NaN where the score is known on one case, or all draws are the same."""
    known = drawn[~np.isnan(drawn)]
    tail = 100 * (1 - LEVEL) / 2
    if freedom <= 0 or not len(known):
        return nan, nan
    low, high = np.percentile(known, [tail, 100 - tail])
    return (float(low), float(high)) if high - low > _SAME else (nan, nan)
