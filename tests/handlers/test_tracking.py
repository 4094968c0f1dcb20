import json
import math
import shutil
from pathlib import Path
from urllib.parse import urlparse

import pytest
from ignite.engine import Engine

from shared.handlers import Tracking

PARENT = "mlflow.parentRunId"


def parent_id(folder):
    return json.loads((folder / "mlflow.json").read_text())["run_id"]


def artifacts(run):
    return sorted(path.name for path in Path(urlparse(run.info.artifact_uri).path).iterdir())


def test_a_parent_run_and_a_child_for_each_stage(tracked_folder, make_tracking, runs_of):
    tracking = make_tracking(run_name="first")
    config = tracked_folder / "config.json"
    config.write_text("{}")
    tracking.start({"learning_rate": 0.1, "norm": "batch"}, config)
    for stage in ("max_max", "max_min"):
        tracking.log_stage(stage, {"pixels.iou": 0.5, "nothing": math.nan}, [config])
    assert tracking.stage_run("max_max") == tracking.stage_run("max_max")
    tracking.finish_stage("max_max")
    runs = runs_of()
    assert sorted(runs) == ["first", "first/max_max", "first/max_min"]
    parent = runs["first"]
    assert parent.info.run_id == parent_id(tracked_folder)
    assert parent.data.params == {"learning_rate": "0.1", "norm": "batch"}
    assert artifacts(parent) == ["config.json"]
    # The files lie next to the database.
    assert Path(urlparse(parent.info.artifact_uri).path).is_relative_to(tracked_folder / "mlruns")
    child = runs["first/max_max"]
    assert child.data.tags[PARENT] == parent.info.run_id
    assert child.data.metrics == {"pixels.iou": 0.5}
    assert artifacts(child) == ["config.json"]
    assert [runs[name].info.status for name in sorted(runs)] == ["RUNNING", "FINISHED", "RUNNING"]
    tracking.finish()
    assert runs_of()["first"].info.status == "FINISHED"


def test_a_resumed_folder_goes_on_in_its_runs(make_tracking, runs_of):
    first = make_tracking()
    first.start({"epochs": 4})
    children = [first.stage_run(stage) for stage in ("a", "b")]
    first.finish_stage("a")
    again = make_tracking()
    again.start({"epochs": 4, "more": 1})
    assert [again.stage_run(stage) for stage in ("a", "b")] == children
    runs = runs_of()
    assert sorted(runs) == ["output", "output/a", "output/b"]
    assert runs["output"].data.params == {"epochs": "4", "more": "1"}


def test_another_value_of_a_parameter_does_not_stop_a_resumed_run(make_tracking, runs_of):
    """MLflow refuses to change a parameter; what may change (the device) keeps its first value."""
    make_tracking().start({"device": "cpu"})
    make_tracking().start({"device": "cuda"})
    assert runs_of()["output"].data.params == {"device": "cpu"}


def test_a_deleted_database_gives_new_runs(tracked_folder, make_tracking, tmp_path, migrated_database):
    tracking = make_tracking()
    tracking.start({})
    first = parent_id(tracked_folder)
    # Another folder, because MLflow keeps the connections of this process.
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copy(migrated_database, moved / "mlruns.db")
    note = json.loads((tracked_folder / "mlflow.json").read_text()) | {"tracking_uri": f"sqlite:///{moved}/mlruns.db"}
    (moved / "mlflow.json").write_text(json.dumps(note))
    fresh = Tracking(moved, "test")
    fresh.start({"a": 1})
    assert parent_id(moved) != first
    assert fresh.stage_run("x")


def test_a_deleted_run_gives_a_new_one(tracked_folder, make_tracking, client):
    make_tracking().start({})
    first = parent_id(tracked_folder)
    client.delete_run(first)
    make_tracking().start({})
    assert parent_id(tracked_folder) != first


def test_another_database_gives_new_runs(tracked_folder, make_tracking, tmp_path, migrated_database, monkeypatch):
    make_tracking().start({})
    first = parent_id(tracked_folder)
    shutil.copy(migrated_database, tmp_path / "other.db")
    make_tracking(tracking_uri=f"sqlite:///{tmp_path}/other.db").start({})
    second = parent_id(tracked_folder)
    assert second != first
    # The environment goes before the argument.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tracked_folder}/mlruns.db")
    make_tracking(tracking_uri=f"sqlite:///{tmp_path}/other.db").start({})
    assert parent_id(tracked_folder) not in (first, second)


def test_a_run_below_that_of_a_sweep(tmp_path, tracked_folder, make_tracking, runs_of):
    """Three levels: sweep, training, stage; also for a folder that began before it was part of a sweep."""
    sweep = make_tracking(run_name="sweep")
    sweep.start({"vary fold": "[0, 1]"})
    database = {"tracking_uri": f"sqlite:///{tracked_folder}/mlruns.db"}
    Tracking(tmp_path / "b", "test", **database).start({})
    for name in ("a", "b"):
        training = Tracking(tmp_path / name, "test", **database, parent_run_id=sweep.parent_run())
        training.start({})
        training.finish_stage("segmentation")
    runs = runs_of()
    assert sorted(runs) == ["a", "a/segmentation", "b", "b/segmentation", "sweep"]
    parents = {name: run.data.tags.get(PARENT) for name, run in runs.items()}
    ids = {name: run.info.run_id for name, run in runs.items()}
    assert parents == {
        "sweep": None,
        "a": ids["sweep"],
        "b": ids["sweep"],
        "a/segmentation": ids["a"],
        "b/segmentation": ids["b"],
    }


def test_a_finished_folder_that_goes_on_is_running(make_tracking, runs_of):
    tracking = make_tracking()
    tracking.start({})
    tracking.finish()
    make_tracking().start({})
    assert runs_of()["output"].info.status == "RUNNING"


@pytest.mark.parametrize("name", ["it's", 'say "so"', "a/b", "ä %"])
def test_any_name_will_do(make_tracking, runs_of, name):
    tracking = make_tracking(run_name=name)
    tracking.start({})
    assert tracking.stage_run("max_max") == tracking.stage_run("max_max")
    assert sorted(runs_of()) == [name, f"{name}/max_max"]


def test_disabled_does_nothing(tmp_path):
    tracking = Tracking(tmp_path / "out", "test", enabled=False)
    tracking.start({"a": 1})
    tracking.log_stage("x", {"m": 1.0})
    tracking.finish_stage("x")
    tracking.finish()
    assert tracking.handler("x") is None
    assert not (tmp_path / "out").exists()


def test_a_handler_logs_the_metrics_of_every_epoch(make_tracking, client):
    tracking = make_tracking()
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler("EPOCH_COMPLETED", lambda: engine.state.metrics.update(loss=1 / engine.state.epoch))
    tracking.handler("max_max").attach(engine)
    engine.run([0], max_epochs=3)
    history = client.get_metric_history(tracking.stage_run("max_max"), "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
