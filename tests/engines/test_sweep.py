"""Sweeps over a real configuration: a tiny MONAI bundle workflow that writes what it was given."""

import json

import pandas as pd
import pytest

from shared.engines.sweep import Sweep, summarise

CONFIG = {
    "imports": ["$import json", "$import pathlib"],
    "output_dir": None,
    "tracking_uri": None,
    "rate": 0.1,
    "fold": 0,
    "fail_at": None,
    "file": "$pathlib.Path(@output_dir) / 'evaluation' / 'metrics.json'",
    "metrics": "$json.dumps({'num_images': 3, 'regions': {'A': {'f_all': @rate * 10 + @fold, 'ods': None}}})",
    "folder": "$@file.parent.mkdir(parents=True, exist_ok=True)",
    "run": ["$1 / (@fold != @fail_at)", "@folder", "$@file.write_text(@metrics)"],
}


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


@pytest.mark.slow
def test_a_sweep_trains_what_is_missing_and_tabulates(tmp_path, config_file):
    """One run fails: the others are finished, and a second start repeats that one alone."""
    varied = {"rate": [0.1, 0.2], "fold": [0, 1]}
    out = tmp_path / "sweep"
    with pytest.raises(RuntimeError, match=r"2 of 4 runs failed:\nrate=0.1,fold=1: exit status 1, see .*log.txt"):
        Sweep([config_file], varied, out, {"fail_at": 1}).run()
    finished = sorted(path.parents[1].name for path in out.glob("*/evaluation/metrics.json"))
    assert finished == ["rate=0.1,fold=0", "rate=0.2,fold=0"]
    assert "division by zero" in (out / "rate=0.1,fold=1/log.txt").read_text()
    before = {path: path.stat().st_mtime_ns for path in out.glob("*fold=0/evaluation/metrics.json")}

    table = Sweep([config_file], varied, out).run()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert table["regions.A.f_all"].tolist() == pytest.approx([1, 2, 2, 3])
    pd.testing.assert_frame_equal(pd.read_csv(out / "sweep.csv"), table, check_dtype=False)

    summary = summarise(table, list(varied), ["regions.A.f_all"], over=["fold"])
    assert summary["rate"].tolist() == [0.1, 0.2]
    assert summary["runs"].tolist() == [2, 2]
    assert summary["regions.A.f_all mean"].tolist() == pytest.approx([1.5, 2.5])
    assert summary["regions.A.f_all std"].tolist() == pytest.approx([0.5**0.5] * 2)
    whole = summarise(table, list(varied), ["regions.A.f_all"], over=["fold", "rate"])
    assert (len(whole), whole["runs"][0], whole["regions.A.f_all mean"][0]) == (1, 4, pytest.approx(2))
    with pytest.raises(ValueError, match=r"there is no metric iou; there are num_images, regions\.A\.f_all"):
        summarise(table, list(varied), ["iou"])


def test_a_run_is_started_as_a_person_would():
    sweep = Sweep(["a.json", "b.json"], {"etas": [[1, 2]], "area": [None], "a::b": ["x/y"]}, "/out", {"seed": 3})
    (values,) = sweep.combinations
    command = sweep.command(values)
    assert command[1:4] == ["-m", "monai.bundle", "run"]
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert options == {
        "--config_file": "['a.json', 'b.json']",
        "--tracking_uri": "sqlite:////out/mlruns.db",
        "--seed": "3",
        "--etas": "[1, 2]",
        "--area": "$None",
        "--a::b": "x/y",
        "--output_dir": "/out/etas=1-2,area=None,a.b=x_y",
    }


@pytest.mark.parametrize("varied", [{}, {"fold": []}])
def test_nothing_to_vary(varied):
    with pytest.raises(ValueError, match="at least one key with at least one value"):
        Sweep(["a.json"], varied, "/out")
