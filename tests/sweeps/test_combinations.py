"""Which trainings a sweep consists of."""

import pytest

from shared.sweeps.sweep import Sweep


def test_some_combinations_may_be_left_out():
    varied = {"alpha": [0.5, 1.0], "beta": [0.0, 0.5]}
    sweep = Sweep(["a.json"], varied, "/out", allowed=lambda run: run["alpha"] + run["beta"] <= 1)
    assert [tuple(values.values()) for values in sweep.combinations] == [(0.5, 0.0), (0.5, 0.5), (1.0, 0.0)]
    with pytest.raises(ValueError, match=r"no combination of .* is allowed"):
        Sweep(["a.json"], varied, "/out", allowed=lambda run: False)


@pytest.mark.parametrize("varied", [{}, {"fold": []}])
def test_nothing_to_vary(varied):
    with pytest.raises(ValueError, match="at least one key with at least one value"):
        Sweep(["a.json"], varied, "/out")


@pytest.mark.parametrize("values", [[1, "1"], ["a b", "a_b"], [[1, 2], "1-2"], [0.1, 0.1]])
def test_combinations_that_would_share_a_folder(values):
    with pytest.raises(ValueError, match=r"would share the folder fold=0,rate=.*: leave out one of them"):
        Sweep(["a.json"], {"fold": [0, 1], "rate": values}, "/out")
