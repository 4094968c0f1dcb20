"""What the command of a sweep prints of finished runs."""

import json
import sys

import pytest

from scripts import sweep
from shared.sweeps.sweep import Sweep


@pytest.fixture
def run(tmp_path, write_config, monkeypatch, capsys):
    """Call the command on two finished runs with given scores; what it prints, and what it raises."""

    def call(scores, *options, fails=False):
        config_file = write_config(needs="nowhere" if fails else None)
        made = Sweep([config_file], {"fold": [0, 1]}, tmp_path / "out")
        for values in made.combinations:
            folder = made.folder(values)
            (folder / "evaluation").mkdir(parents=True, exist_ok=True)
            (folder / "evaluation/metrics.json").write_text(json.dumps(scores[values["fold"]]))
            (folder / "sweep.json").write_text(json.dumps(made.settings(values)))
        varied = ["--vary", "fold", "0", "1", *(["2"] if fails else [])]
        arguments = ["--config_file", config_file, *varied, "--output_dir", str(tmp_path / "out"), *options]
        monkeypatch.setattr(sys, "argv", ["sweep.py", *arguments])
        problem = None
        try:
            sweep.main()
        except (ValueError, RuntimeError) as error:
            problem = error
        said = capsys.readouterr()
        return said.out, said.err, problem

    return call


def test_slides_without_masks_have_an_auc(run):
    scores = [{"num_slides": 4, "slides": {"MIL": {"auc": auc}}} for auc in (0.5, 0.75)]
    out, _, problem = run(scores, "--over", "fold")
    assert problem is None
    assert out.split() == ["runs", "slides.MIL.auc", "mean", "slides.MIL.auc", "std", "2", "0.6250", "0.1768"]


def test_without_a_known_score_the_runs_and_columns_are_named(run):
    out, _, problem = run([{"images": {"A": {"accuracy": 0.5}}, "num_images": 3}] * 2)
    assert problem is None
    *rows, said = out.splitlines()
    assert [row.split() for row in rows] == [["fold"], ["0"], ["1"]]
    assert said == "no column of sweep.csv is an F, IoU or AUC; give --metric, of images.A.accuracy, num_images"


def test_failed_runs_are_named_whatever_can_be_shown(run):
    """Not that there is no such metric, which is said before."""
    _, err, problem = run([{"images": {"A": {"iou": 0.5}}}] * 2, "--metric", "iou", fails=True)
    assert str(problem).startswith("1 of 3 runs failed:\nfold=2: exit status 1")
    assert "the finished runs cannot be shown: there is no metric iou; the columns are images.A.iou" in err


def test_values_with_runs_without_a_score_are_left_out(tmp_path, run, capsys):
    scores = [{"images": {"A": {"iou": 0.5}}}] * 2
    for fold, value in enumerate((0.5, "")):
        stage = tmp_path / "out" / f"fold={fold}" / "stage"
        stage.mkdir(parents=True)
        (stage / "history.csv").write_text(f"epoch,val_f\n1,{value}\n")
    out, _, problem = run(scores, "--choose", "stage.val_f", "--metric", "images.A.iou")
    assert problem is None
    assert out.splitlines()[-1] == "left out: fold 1, of which only 0 of 1 runs have stage.val_f"
