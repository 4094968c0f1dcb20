"""A new MLflow database is whole or not there, whenever the process that makes it is killed."""

import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.handlers import Tracking

# Killed after MLflow has made its first tables, and before it has brought them up to date.
KILLED = """
import os, sys
from mlflow.store.db import utils
from shared.handlers import Tracking

utils._upgrade_db = lambda engine: os.kill(os.getpid(), 9)
Tracking(sys.argv[1], "camel").start({"lr": 0.1})
"""
STARTED = """
import sys
from shared.handlers import Tracking

Tracking(sys.argv[1], "camel", sys.argv[2]).start({"lr": 0.1})
"""


def python(code, *arguments):
    environment = {name: text for name, text in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=environment)


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_kill_between_its_tables_leaves_none(tmp_path, plain):
    assert python(KILLED, tmp_path / "run").returncode == -9
    assert list((tmp_path / "run").iterdir()) == []
    tracking = Tracking(tmp_path / "run", "camel")
    tracking.start({"lr": 0.1})
    tracking.finish()
    assert sorted(path.name for path in (tmp_path / "run").glob("mlruns.db*")) == ["mlruns.db"]


def test_processes_that_begin_together_share_one(tmp_path):
    uri = f"sqlite:///{tmp_path / 'all.db'}"
    with ThreadPoolExecutor(3) as pool:
        processes = list(pool.map(lambda name: python(STARTED, tmp_path / name, uri), "abc"))
    assert [process.returncode for process in processes] == [0, 0, 0], processes
    with sqlite3.connect(tmp_path / "all.db") as database:
        names = {name for (name,) in database.execute("SELECT name FROM runs")}
    assert names == {"a", "b", "c"}
