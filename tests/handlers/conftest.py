"""A real MLflow database and what a test asks of it."""

import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient

from shared.handlers import Tracking


@pytest.fixture
def make_tracking(tracked_folder):
    def make(**options):
        return Tracking(tracked_folder, "test", **options)

    return make


@pytest.fixture
def client(tracked_folder):
    return MlflowClient(f"sqlite:///{tracked_folder}/mlruns.db")


@pytest.fixture
def runs_of(client):
    """Name -> run of an experiment."""

    def runs(experiment="test"):
        found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
        named = {run.info.run_name: run for run in found}
        assert len(named) == len(found)
        return named

    return runs


@pytest.fixture
def run_git():
    """What git prints of this repository."""

    def run(*arguments):
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    return run
