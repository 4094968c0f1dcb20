"""The row of a sweep that is chosen."""

import pandas as pd
import pytest

from shared.sweeps.sweep_table import best_row


def test_the_best_row():
    summary = pd.DataFrame({"etas": ["a", "b", "c"], "val mean": [float("nan"), 0.7, 0.7]})
    assert best_row(summary, "val")["etas"].tolist() == ["b"]
    with pytest.raises(ValueError, match="val has no value in any run"):
        best_row(summary[:1], "val")
