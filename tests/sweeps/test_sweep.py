"""Sweeps over a real configuration: a tiny MONAI bundle workflow that writes what it was given."""

import hashlib
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from shared.sweeps.sweep import Sweep
from shared.sweeps.sweep_table import summarise

from .conftest import CONFIG, ROOT


def test_a_sweep_trains_what_is_missing_and_tabulates(tmp_path, write_config):
    """One run fails: the others are finished, and a second start repeats that one alone."""
    varied = {"rate": [0.1, 0.2], "fold": [0, 1]}
    out, needs = tmp_path / "sweep", tmp_path / "needed"
    config_file = write_config(needs=str(needs))
    Path(f"{needs}0").touch()
    with pytest.raises(RuntimeError, match=r"2 of 4 runs failed:\nrate=0.1,fold=1: exit status 1, see .*log.txt"):
        Sweep([config_file], varied, out).run()
    finished = sorted(path.parents[1].name for path in out.glob("*/evaluation/metrics.json"))
    assert finished == ["rate=0.1,fold=0", "rate=0.2,fold=0"]
    assert "No such file" in (out / "rate=0.1,fold=1/log.txt").read_text()
    before = {path: path.stat().st_mtime_ns for path in out.glob("*fold=0/evaluation/metrics.json")}

    Path(f"{needs}1").touch()
    table = Sweep([config_file], varied, out).run()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert table["regions.A.f_all"].tolist() == pytest.approx([1, 2, 2, 3])
    # The last epoch's, as the configuration keeps no other.
    assert table["stage.val_f"].tolist() == pytest.approx([-0.1, 0.9, 0, 1])
    assert "stage.train_loss" not in table
    pd.testing.assert_frame_equal(pd.read_csv(out / "sweep.csv"), table, check_dtype=False)

    summary = summarise(table, list(varied), ["regions.A.f_all"], over=["fold"])
    assert summary["rate"].tolist() == [0.1, 0.2]
    assert summary["runs"].tolist() == [2, 2]
    assert summary["regions.A.f_all mean"].tolist() == pytest.approx([1.5, 2.5])
    assert summary["regions.A.f_all std"].tolist() == pytest.approx([0.5**0.5] * 2)
    whole = summarise(table, list(varied), ["regions.A.f_all"], over=["fold", "rate"])
    assert (len(whole), whole["runs"][0], whole["regions.A.f_all mean"][0]) == (1, 4, pytest.approx(2))
    with pytest.raises(ValueError, match=r"there is no metric iou; the columns are num_images, regions\.A\.f_all"):
        summarise(table, list(varied), ["iou"])
    with pytest.raises(ValueError, match="cannot average over seed: the varied keys are rate, fold"):
        summarise(table, list(varied), ["regions.A.f_all"], over=["fold", "seed"])


def test_values_are_chosen_by_validation_images(run_python, tmp_path, write_config):
    options = ["--vary", "rate", 0.2, 0.3, "--vary", "fold", 0, 1, "--over", "fold", "--output_dir", tmp_path / "out"]
    options += ["--choose", "stage.val_f", "--metric", "regions.A.f_all"]
    process = run_python("scripts/sweep.py", "--config_file", write_config(), *options)
    assert process.returncode == 0, process.stdout + process.stderr
    table, chosen = process.stdout.split("\n\n")
    assert len(table.splitlines()) == 1 + 2
    title, _, row = chosen.splitlines()
    assert title.startswith("Largest stage.val_f on validation images")
    assert row.split() == ["0.2000", "2", "0.5000", "0.7071", "2.5000", "0.7071"]


def test_each_key_is_chosen_by_itself(run_python, tmp_path, write_config):
    """Of finished runs: validation prefers the rate 0.2 and the fold 1; no run has both, and one that has is not looked at."""
    config_file, out = write_config(), tmp_path / "out"
    for rate, fold in ((0.3, 0), (0.2, 0), (0.3, 1), (0.2, 1)):
        values = {"rate": rate, "fold": fold}
        sweep = Sweep([config_file], {name: [value] for name, value in values.items()}, out)
        for name, text in {
            "evaluation/metrics.json": json.dumps({"num_images": 3}),
            "stage/history.csv": f"epoch,val_f\n1,{fold - rate}\n",
            "sweep.json": json.dumps(sweep.settings(values)),
        }.items():
            file = sweep.folder(values) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    options = ["--vary", "rate", 0.3, 0.2, "--vary", "fold", 0, 1, "--one_at_a_time", "--choose", "stage.val_f"]
    process = run_python(
        "scripts/sweep.py", "--config_file", config_file, *options, "--metric", "num_images", "--output_dir", out
    )
    assert process.returncode == 0, process.stdout + process.stderr
    runs = pd.read_csv(out / "sweep.csv")
    assert sorted(zip(runs["rate"], runs["fold"], strict=True)) == [(0.2, 0), (0.3, 0), (0.3, 1)]
    lines = process.stdout.split("\n\n")[1].splitlines()
    chosen = {name: lines[lines.index(f"{name}:") + 2].split()[:2] for name in ("rate", "fold")}
    assert chosen == {"rate": ["0.2000", "0"], "fold": ["0.3000", "1"]}


def test_overlays_are_varied_alone_too(run_python, tmp_path, write_config):
    """All runs are finished: those of both another overlay and another rate are not of the sweep."""
    config_file, out = write_config(), tmp_path / "out"
    (tmp_path / "b.json").write_text(json.dumps({"nested": {"depth": 4}}))
    varied, overlays = {"rate": [0.3, 0.2]}, ["none", "b"]
    sweep = Sweep([config_file], varied, out, overlays=overlays)
    for values in sweep.combinations:
        folder = sweep.folder(values)
        (folder / "evaluation").mkdir(parents=True)
        (folder / "evaluation/metrics.json").write_text(json.dumps({"num_images": 3}))
        (folder / "sweep.json").write_text(json.dumps(sweep.settings(values)))
    options = ["--vary", "rate", 0.3, 0.2, "--overlays", *overlays, "--one_at_a_time", "--metric", "num_images"]
    process = run_python("scripts/sweep.py", "--config_file", config_file, *options, "--output_dir", out)
    assert process.returncode == 0, process.stdout + process.stderr
    runs = pd.read_csv(out / "sweep.csv")
    assert list(zip(runs["overlays"], runs["rate"], strict=True)) == [("none", 0.3), ("none", 0.2), ("b", 0.3)]


def test_overlays_vary_too(tmp_path, write_config):
    """Each of them names its method, whose scores stand in one column."""
    config_file = write_config()
    (tmp_path / "b.json").write_text(json.dumps({"rate": 0.2, "method": "B"}))
    (tmp_path / "c.json").write_text(json.dumps({"nested": {"depth": 4}}))
    overlays = ["none", "b", "b+c"]
    sweep = Sweep([config_file], {"fold": [0]}, tmp_path / "out", {"method": "A"}, overlays=overlays)
    assert [sweep.folder(values).name for values in sweep.combinations] == [f"overlays={name},fold=0" for name in overlays]
    assert [sweep.settings(values)["nested::depth"] for values in sweep.combinations] == [3, 3, 4]
    assert "overlays" not in sweep.settings(sweep.combinations[0])
    command = sweep.command(sweep.combinations[-1])
    assert command[command.index("--config_file") + 1] == str([config_file, str(tmp_path / "b.json"), str(tmp_path / "c.json")])
    assert "--overlays" not in command
    for values, method in zip(sweep.combinations, "ABB", strict=True):
        file = sweep.folder(values) / "evaluation" / "metrics.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"num_images": 3, "regions": {"Side": {"f": 0.1}, method: {"f": 0.5}}}))
    table = Sweep([config_file], {"fold": [0]}, tmp_path / "out", overlays=overlays).table()
    assert table["regions.method.f"].tolist()[1:] == [0.5, 0.5]
    assert table["overlays"].tolist() == overlays
    with pytest.raises(ValueError, match=r"d\.json does not exist: overlays are named as the files of"):
        Sweep([config_file], {}, tmp_path / "out", overlays=["b+d"])


@pytest.mark.parametrize(
    ("bundle", "methods"),
    [
        ("camel", {"none": "CAMEL", "max_max": "Max-Max alone"}),
        ("cdws_mil", {"none": "CDWS-MIL", "dws": "DWS-MIL"}),
        ("joint_seg_cls", {"none": "S+C*", "s": "S"}),
    ],
)
def test_the_methods_of_a_bundle_share_their_columns(tmp_path, bundle, methods):
    """Whether the bundle names a method by itself, within its evaluation, or after another key."""
    config_file = str(ROOT / "bundles" / bundle / "configs/train.json")
    sweep = Sweep([config_file], {"seed": [0]}, tmp_path / "out", overlays=list(methods))
    for values, method in zip(sweep.combinations, methods.values(), strict=True):
        file = sweep.folder(values) / "evaluation" / "metrics.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"pixels": {method: {"iou": 0.5}, "Everything is tumour": {"iou": 0.1}}}))
    assert sweep.table()["pixels.method.iou"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--choose", "regions.A.f_all"], "nothing may be chosen on test images; got regions.A.f_all"),
        (["--over", "fold", "sed"], "cannot average over sed: the varied keys are fold, mode"),
        (["--vary", "name", "a/b", "a_b"], "would share the folder fold=0,mode=x,name=a_b"),
        (["--vary", "mode", "z"], "--vary names the key 'mode' several times"),
    ],
)
def test_the_script_refuses_before_it_trains(run_python, tmp_path, write_config, options, problem):
    varied = ["--vary", "fold", 0, 1, "--vary", "mode", "x", "y", *options]
    process = run_python("scripts/sweep.py", "--config_file", write_config(), *varied, "--output_dir", tmp_path / "out")
    assert process.returncode == 2
    assert problem in process.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ['{"bad', "3"])
def test_damaged_settings_of_a_run_are_named(tmp_path, write_config, finish, content):
    sweep = Sweep([write_config()], {"fold": [0]}, tmp_path / "out")
    finish(sweep)
    file = tmp_path / "out" / "fold=0" / "sweep.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}: expected the settings of a run as a JSON object; .* Delete"):
        sweep.check()


@pytest.mark.parametrize("content", ['{"bad', "3"])
def test_damaged_scores_of_a_run_are_named(tmp_path, write_config, finish, content):
    sweep = Sweep([write_config()], {"fold": [0]}, tmp_path / "out")
    finish(sweep)
    file = tmp_path / "out" / "fold=0" / "evaluation" / "metrics.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}: expected the scores of a run as a JSON object; .* Delete"):
        sweep.table()


@pytest.mark.parametrize(
    ("entries", "fixed", "difference"),
    [
        ({"rate": 0.7}, {}, "rate: 0.1 before, 0.7 now"),
        ({"nested": {"depth": 4}}, {}, "nested::depth: 3 before, 4 now"),
        ({"more": None}, {"rate": 0.7}, "rate: 0.1 before, 0.7 now"),
        ({}, {"nested::depth": None}, "nested::depth: 3 before, None now"),
    ],
)
def test_a_run_of_other_settings_is_refused(tmp_path, write_config, finish, entries, fixed, difference):
    out = tmp_path / "out"
    finish(Sweep([write_config()], {"fold": [0, 1]}, out), {"fold": 1})
    again = Sweep([write_config(**entries)], {"fold": [0, 1]}, out, fixed)
    with pytest.raises(ValueError, match=rf"fold=1 contains a run of another sweep \({difference}\).* nothing was changed"):
        again.run()
    assert sorted(path.name for path in out.iterdir()) == ["fold=1"]


def test_where_and_how_a_run_is_computed_may_differ(tmp_path, write_config, finish):
    first = Sweep([write_config()], {"fold": [0, 1]}, tmp_path / "out")
    finish(first)
    entries = {
        "_desc_rate": "Another text.",
        "num_workers": 4,
        "device": "cpu",
        "nested": {"depth": 3, "cache": {"max_files": 4}},
    }
    fixed = {"tracking_uri": "http://server", "tracking::enabled": False, "device": "cuda"}
    table = Sweep([write_config(**entries)], {"fold": [0, 1]}, tmp_path / "out", fixed).run()
    assert table["fold"].tolist() == [0, 1]


def test_notes_are_those_of_the_run(tmp_path, write_config, finish):
    """What an older version did not note is not known to differ."""
    finish(Sweep([write_config()], {"fold": [0]}, tmp_path / "out", notes={"files": "one"}))
    for notes in ({"files": "one"}, {"files": "one", "masks": "new"}):
        Sweep([write_config()], {"fold": [0]}, tmp_path / "out", notes=notes).check()
    with pytest.raises(ValueError, match=r"another sweep \(files: 'one' before, 'other' now\)"):
        Sweep([write_config()], {"fold": [0]}, tmp_path / "out", notes={"files": "other"}).check()


@pytest.mark.parametrize("bundle", sorted(path.parent.name for path in (ROOT / "bundles").glob("*/configs")))
@pytest.mark.parametrize("is_finished", [True, False])
def test_a_manifest_that_has_changed_is_refused(tmp_path, finish, bundle, is_finished):
    """Whatever is finished would otherwise stand beside runs on other images."""
    manifest = tmp_path / "images.csv"
    manifest.write_text("image,label\na.png,0\n")
    config_file = ROOT / "bundles" / bundle / "configs" / "train.json"
    sweep = Sweep([str(config_file)], {"seed": [0, 1]}, tmp_path / "out", {"manifest": str(manifest)})
    folder = sweep.folder({"seed": 0})
    finish(sweep, {"seed": 0})
    recorded = {"manifest": str(manifest), "_files_": {"images.csv": hashlib.sha256(manifest.read_bytes()).hexdigest()}}
    (folder / "config.json").write_text(json.dumps(json.loads(config_file.read_text()) | recorded))
    if not is_finished:
        (folder / "evaluation/metrics.json").unlink()
    sweep.check()
    manifest.write_text("image,label\na.png,1\n")
    with pytest.raises(ValueError, match=rf"seed=0 contains a run of another sweep \(the content of {manifest} has changed\)"):
        sweep.check()
    # Nothing can be trained on one that is gone.
    manifest.unlink()
    if is_finished:
        Sweep([str(config_file)], {"seed": [0]}, tmp_path / "out", {"manifest": str(manifest)}).check()


def test_a_run_that_did_not_end_well_is_not_finished(tmp_path, write_config, finish):
    """It had written its scores, and more was to come: it is started again, and its row is not shown before."""
    sweep = Sweep([write_config()], {"fold": [0, 1]}, tmp_path / "out")
    finish(sweep)
    (tmp_path / "out/fold=0/unfinished").touch()
    assert [sweep.is_finished(values) for values in sweep.combinations] == [False, True]
    assert sweep.table()["fold"].tolist() == [1]
    sweep.run()
    assert [(folder / "log.txt").is_file() for folder in map(sweep.folder, sweep.combinations)] == [True, False]
    assert all(map(sweep.is_finished, sweep.combinations))


def test_what_can_be_done_with_scores_of_a_process_that_ended_badly(tmp_path, write_config, finish, monkeypatch):
    sweep = Sweep([write_config()], {"fold": [0]}, tmp_path / "out")
    finish(sweep)
    (tmp_path / "out/fold=0/unfinished").touch()
    monkeypatch.setattr("shared.sweeps.sweep.run_child", lambda command, log: 139)
    with pytest.raises(RuntimeError, match=r"exit status 139, .* delete \S*fold=0/unfinished to take them as they are"):
        sweep.run()
    (tmp_path / "out/fold=0/unfinished").unlink()
    assert sweep.run()["fold"].tolist() == [0]


def test_a_finished_run_of_unknown_settings_is_refused(tmp_path, write_config, finish):
    sweep = Sweep([write_config()], {"fold": [0]}, tmp_path / "out")
    finish(sweep)
    (tmp_path / "out/fold=0/sweep.json").unlink()
    with pytest.raises(ValueError, match=r"it has no sweep\.json"):
        sweep.run()


@pytest.mark.parametrize(
    ("varied", "fixed", "said"),
    [
        ({"rates": [0.1, 0.2]}, {}, "--rates 0.1: .* has no key 'rates', so it would have no effect. Was rate meant"),
        ({"fold": [0]}, {"nested::dept": 3}, "'nested' has no item 'dept', so it would have no effect. Was depth meant"),
        ({"fold": [0]}, {"needs": "a#b"}, "MONAI reads 'a#b' as 'a::b'"),
    ],
)
def test_wrong_keys_are_refused_before_anything_is_trained(tmp_path, write_config, varied, fixed, said):
    with pytest.raises(ValueError, match=said):
        Sweep([write_config()], varied, tmp_path / "out", fixed).run()
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_mlflow_shows_the_trainings_below_their_sweep(tracked_folder, write_config):
    """A real database: one run of the sweep, kept over an interruption, and below it a run a training."""
    tracking = {"_target_": "shared.handlers.Tracking", "folder": "@output_dir", "tracking_uri": "@tracking_uri"}
    needs = tracked_folder / "needed"
    tracked = {"tracking": tracking | {"experiment": "test"}, "needs": str(needs)}
    steps = ["$@tracking.start({})", *CONFIG["run"], "$@tracking.finish()"]
    sweep = Sweep([write_config(**tracked, run=steps)], {"fold": [0, 1]}, tracked_folder)
    client = MlflowClient(f"sqlite:///{tracked_folder}/mlruns.db")

    def runs():
        return {run.info.run_name: run for run in client.search_runs([client.get_experiment_by_name("test").experiment_id])}

    Path(f"{needs}0").touch()
    with pytest.raises(RuntimeError, match="1 of 2 runs failed"):
        sweep.run()
    first = runs()
    assert first.keys() == {"output", "fold=0", "fold=1"}
    assert [first[name].info.status for name in ("output", "fold=0")] == ["RUNNING", "FINISHED"]

    Path(f"{needs}1").touch()
    sweep.run()
    second = runs()
    ids = {name: run.info.run_id for name, run in second.items()}
    assert ids == {name: run.info.run_id for name, run in first.items()}
    assert {run.info.status for run in second.values()} == {"FINISHED"}
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in second.items()}
    assert parents == {"output": None, "fold=0": ids["output"], "fold=1": ids["output"]}
    assert second["output"].data.params == {"vary fold": "[0, 1]"}
    assert json.loads((tracked_folder / "mlflow.json").read_text())["run_id"] == ids["output"]


def test_a_run_is_started_as_a_person_would():
    sweep = Sweep(["a.json", "b.json"], {"etas": [[1, 2]], "area": [None], "a::b": ["x/y"]}, "/out", {"seed": 3})
    (values,) = sweep.combinations
    command = sweep.command(values, parent_run_id="abc")
    assert command[1:4] == ["-m", "monai.bundle", "run"]
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert options == {
        "--config_file": "['a.json', 'b.json']",
        "--tracking_uri": "sqlite:////out/mlruns.db",
        "--seed": "3",
        "--tracking::parent_run_id": "abc",
        "--etas": "[1, 2]",
        "--area": "$None",
        "--a::b": "x/y",
        "--output_dir": "/out/etas=1-2,area=None,a.b=x_y",
    }
    assert "--tracking::parent_run_id" not in sweep.command(values)
