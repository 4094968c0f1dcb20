"""Folders of any name and folders that have moved, with MLflow's real databases."""

import json
import shutil
from pathlib import Path
from urllib.request import url2pathname

import pytest
from mlflow import MlflowClient
from sqlalchemy.engine import make_url

from shared.handlers import Tracking, database_uri
from shared.handlers.tracking_address import database_file

NAMES = ["50%", "a%20b", "what?", "a#b", "two words", "Präparate", "a?x=1&y#z %41 ü"]


@pytest.fixture
def tracked(tmp_path, migrated_database, monkeypatch):
    """A folder of this name with a database, and a run with a stage and a file; its tracking."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def make(name):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(migrated_database, folder / "mlruns.db")
        (folder / "config.json").write_text("{}")
        tracking = Tracking(folder, "test")
        tracking.start({"rate": 0.1}, folder / "config.json")
        tracking.log_stage("max_max", {"iou": 0.5}, [folder / "config.json"])
        return tracking

    return make


def runs_of(folder):
    """Name -> run of the database in a folder, which is opened as a file."""
    client = MlflowClient(database_uri(folder))
    (experiment,) = (found for found in client.search_experiments() if found.name == "test")
    return client, experiment, {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def file_of(uri):
    assert uri.startswith("file://")
    return Path(url2pathname(uri.removeprefix("file://")))


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name(tracked, tmp_path, name):
    tracking = tracked(name)
    folder = tmp_path / name
    assert make_url(tracking.uri).database == str(folder / "mlruns.db")
    assert database_file(tracking.uri) == folder / "mlruns.db"
    # Nothing lies at another path.
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    assert {path.name for path in folder.iterdir()} == {"config.json", "mlflow.json", "mlruns", "mlruns.db"}
    _, experiment, runs = runs_of(folder)
    assert file_of(experiment.artifact_location) == folder / "mlruns"
    assert runs.keys() == {name, f"{name}/max_max"}
    for run in runs.values():
        assert (file_of(run.info.artifact_uri) / "config.json").is_file()
    # Again: the same runs.
    again = Tracking(folder, "test")
    again.start({"rate": 0.1})
    assert again.parent_run() == runs[name].info.run_id


@pytest.mark.parametrize("how", [Path.rename, shutil.copytree], ids=["moved", "copied"])
@pytest.mark.parametrize("name", ["b", "50 %?"])
def test_a_moved_folder_goes_on_in_its_runs_and_with_its_own_files(tracked, tmp_path, name, how):
    parent = tracked("a").parent_run()
    how(tmp_path / "a", tmp_path / name)
    before = sorted(path for path in (tmp_path / "a").rglob("*"))
    folder = tmp_path / name
    moved = Tracking(folder, "test", run_name="a")
    moved.start({"rate": 0.1}, folder / "config.json")
    moved.log_stage("max_max", {"iou": 0.6}, [folder / "config.json"])
    moved.log_stage("later", {"iou": 0.7}, [folder / "config.json"])
    assert moved.parent_run() == parent
    assert json.loads((folder / "mlflow.json").read_text()) == {"tracking_uri": database_uri(folder), "run_id": parent}
    client, experiment, runs = runs_of(folder)
    assert runs.keys() == {"a", "a/max_max", "a/later"}
    for uri in (experiment.artifact_location, *(run.info.artifact_uri for run in runs.values())):
        assert file_of(uri).is_relative_to(folder / "mlruns")
    for run in runs.values():
        assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["config.json"]
    # Nothing is written to the old place.
    assert sorted(path for path in (tmp_path / "a").rglob("*")) == before


def test_addresses_of_other_places_stay(tracked, tmp_path):
    tracking = tracked("a")
    elsewhere = tracking._client.create_experiment("elsewhere", artifact_location="file:///somewhere/mlruns")
    beside = tracking._client.create_experiment("beside", artifact_location=f"file://{tmp_path}/a/mlruns2")
    (tmp_path / "a").rename(tmp_path / "b")
    Tracking(tmp_path / "b", "test").start({})
    client, _, _ = runs_of(tmp_path / "b")
    assert client.get_experiment(elsewhere).artifact_location == "file:///somewhere/mlruns"
    assert client.get_experiment(beside).artifact_location == f"file://{tmp_path}/a/mlruns2"


def test_a_database_in_a_folder_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(
        ValueError, match=f"database {tmp_path}/none/m.db cannot be created: the folder {tmp_path}/none does not exist"
    ):
        Tracking(tmp_path / "run", "test", tracking_uri=f"sqlite:///{tmp_path}/none/m.db").start({})
