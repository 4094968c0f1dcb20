"""Which trainings a sweep consists of."""

import sys

import pytest

from scripts import sweep
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


@pytest.mark.parametrize(
    ("varied", "fixed", "overlays", "said"),
    [
        ({"fold": [0, 1]}, {"fold": 2}, None, r"the key 'fold' has one value in every run \(2\) and varies too \(\[0, 1\]\)"),
        ({"fold": [0]}, {"output_dir": "runs"}, None, "the sweep sets output_dir of every run itself"),
        ({"config_file": ["a.json", "b.json"]}, {}, None, "the sweep sets config_file of every run itself"),
        ({"overlays": ["a"]}, {}, ["none"], "the key 'overlays' varies, and overlays are given too"),
    ],
)
def test_keys_without_effect(varied, fixed, overlays, said):
    with pytest.raises(ValueError, match=said):
        Sweep(["a.json"], varied, "/out", fixed, overlays=overlays)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--vary", "fold", "0", "1", "--set", "fold", "2"),
            "--set fold would have no effect, because --vary fold changes this key",
        ),
        (("--vary", "fold", "0", "1", "--vary", "fold", "2"), "--vary names the key 'fold' several times"),
        (("--vary", "fold", "0", "--set", "a", "1", "--set", "a", "2"), "--set names the key 'a' several times"),
        (("--vary", "fold", "0", "--over", "seed"), "cannot average over seed: the varied keys are fold"),
        (("--vary", "fold", "0", "--set", "output_dir", "b"), "the sweep sets output_dir of every run itself"),
    ],
)
def test_options_without_effect_are_refused(monkeypatch, capsys, tmp_path, options, said):
    (tmp_path / "train.json").write_text("{}")
    out = tmp_path / "out"
    monkeypatch.setattr(
        sys, "argv", ["sweep.py", "--config_file", str(tmp_path / "train.json"), *options, "--output_dir", str(out)]
    )
    with pytest.raises(SystemExit) as stop:
        sweep.main()
    assert stop.value.code == 2
    assert f"sweep.py: error: {said}" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("values", [[1, "1"], ["a b", "a_b"], [[1, 2], "1-2"], [0.1, 0.1]])
def test_combinations_that_would_share_a_folder(values):
    with pytest.raises(ValueError, match=r"would share the folder fold=0,rate=.*: leave out one of them"):
        Sweep(["a.json"], {"fold": [0, 1], "rate": values}, "/out")
