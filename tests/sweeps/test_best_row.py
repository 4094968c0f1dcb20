"""The row of a sweep that is chosen."""

import pandas as pd
import pytest

from shared.sweeps.sweep_table import best_row, left_out, summarise


def test_the_best_row():
    summary = pd.DataFrame({"etas": ["a", "b", "c"], "runs": 1, "val mean": [float("nan"), 0.7, 0.7]})
    assert best_row(summary, "val")["etas"].tolist() == ["b"]
    with pytest.raises(ValueError, match="val has no value in any run"):
        best_row(summary[:1], "val")


RUNS = pd.DataFrame({"a": [1, 1, 1, 2, 2, 2], "fold": [0, 1, 2, 0, 1, 2], "val_f": [0.5, 0.6, 0.7, 0.9, None, None]})


def test_means_say_of_how_many_runs_they_are():
    summary = summarise(RUNS.assign(iou=0.5), ["a", "fold"], ["val_f", "iou"], over=["fold"])
    # Only where it is not of all.
    assert list(summary) == ["a", "runs", "val_f mean", "val_f std", "val_f of", "iou mean", "iou std"]
    assert summary["runs"].tolist() == [3, 3]
    assert summary["val_f of"].tolist() == [3, 1]
    assert summary["val_f mean"].tolist() == pytest.approx([0.6, 0.9])


def test_a_mean_of_fewer_runs_is_not_chosen():
    """One fold of 0.9 is no better than three of 0.6."""
    summary = summarise(RUNS, ["a", "fold"], ["val_f"], over=["fold"])
    assert best_row(summary, "val_f")["a"].tolist() == [1]
    assert left_out(summary, "val_f") == ["left out: a 2, of which only 1 of 3 runs have val_f"]
    with pytest.raises(ValueError, match="some runs of every row have no val_f, so the means are of different runs"):
        best_row(summary[1:], "val_f")
    assert left_out(summary[:1], "val_f") == []
