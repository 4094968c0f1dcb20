"""What is said of intervals that rest on few cases."""

import numpy as np
import pytest

from scripts.comparison.reporting.cautions import Sampled, caution
from scripts.comparison.rows.method_row import MethodRow
from scripts.comparison.scores.intervals import draw

from .test_intervals import random_scores

FEW = "sensitivity, IoU, F1, AUC and the means of such cases rest on these, and below 20 intervals are rough."


@pytest.mark.parametrize(
    ("num_cases", "num_tumour", "num_normal", "names", "said"),
    [
        (29, 11, 29, ["normal", "tumour"], f"Only 11 of 29 test cases have tumour: {FEW}"),
        (29, 11, 29, ["a", "b", "c"], f"Only 11 of 29 test cases have a class other than a: {FEW}"),
        (40, 20, 40, ["normal", "tumour"], ""),
        (
            29,
            29,
            5,
            ["normal", "tumour"],
            "Only 5 of 29 test cases have normal pixels: specificity and AUC rest on these, and below 20 intervals are rough.",
        ),
        (
            29,
            1,
            29,
            ["normal", "tumour"],
            f"Only 1 of 29 test cases has tumour: {FEW.replace('these', 'it')}",
        ),
        (
            29,
            0,
            29,
            ["normal", "tumour"],
            "None of the 29 test cases has tumour: sensitivity, IoU, F1, AUC and the means of such cases are not known.",
        ),
        (12, 12, 12, ["normal", "tumour"], "Only 12 test cases: below 20 the intervals are rough."),
        (1, 1, 1, ["normal", "tumour"], "Only 1 test case: below 20 the intervals are rough."),
        (
            1,
            0,
            1,
            ["normal", "tumour"],
            "Only 1 test case: below 20 the intervals are rough. The only test case lacks tumour: sensitivity, IoU, F1, AUC "
            "and the means of such cases are not known.",
        ),
        (
            12,
            6,
            12,
            ["normal", "tumour"],
            f"Only 12 test cases: below 20 the intervals are rough. Only 6 of 12 test cases have tumour: {FEW}",
        ),
    ],
)
def test_few_cases_and_few_with_tumour(num_cases, num_tumour, num_normal, names, said):
    scores = random_scores(0, len(names), np.arange(num_cases).astype(str))
    scores.counts[num_tumour:, [0, 2]] = 0
    scores.counts[num_normal:, [1, 3]] = 0
    row = MethodRow("camel", "CAMEL", seeds=[0, 1], draws=draw([scores], 10))
    assert caution([row], Sampled("image", num_cases, 0), names) == said


def test_a_class_of_few_cases_is_named():
    """A mean over classes is known no better than each of them; a class of no case is not in it."""
    scores = random_scores(0, 4, np.arange(29).astype(str))
    scores.confusion[2:, 2], scores.confusion[:, 3] = 0, 0
    row = MethodRow("joint", "Joint", seeds=[0, 1], draws=draw([scores], 10))
    assert caution([row], Sampled("image", 29, 0), ["normal", "benign", "in situ", "invasive"]) == (
        "Only 2 of 29 test cases have in situ: its F1, macro F1 and mean IoU rest on these, and below 20 intervals are rough."
    )
