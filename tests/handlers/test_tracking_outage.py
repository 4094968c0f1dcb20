"""A real MLflow server that dies during a training, and what it is sent when it is back."""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from ignite.engine import Engine
from mlflow import MlflowClient

from shared.handlers import Tracking
from shared.handlers.tracking_backlog import BACKLOG, Backlog
from tests.free_port import free_port

DEADLINE_S = 900


class Server:
    """``mlflow server`` on a port of this machine, over a database in a folder; killed and started again."""

    def __init__(self, folder, database):
        self.folder = folder
        folder.mkdir()
        shutil.copy(database, folder / "mlruns.db")
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        command = ["-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.folder}/mlruns.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "files"), "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "log.txt").open("a") as log:
            self.process = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                assert self.process.poll() is None, (self.folder / "log.txt").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def kill(self):
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def runs(self):
        """Name -> run, as the server's database has it."""
        client = MlflowClient(f"sqlite:///{self.folder}/mlruns.db")
        experiment = client.get_experiment_by_name("test")
        found = client.search_runs([experiment.experiment_id])
        named = {run.info.run_name: run for run in found}
        assert len(named) == len(found)
        return client, named


@pytest.fixture
def server(tmp_path, migrated_database, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    server = Server(tmp_path / "server", migrated_database)
    yield server
    server.kill()


def train(tracking, num_epochs, after_epoch=lambda epoch: None):
    """An engine whose metric is its epoch, with the handler of the stage ``max_max``."""
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler("EPOCH_COMPLETED", lambda: engine.state.metrics.update(value=float(engine.state.epoch)))
    tracking.handler("max_max").attach(engine)
    engine.add_event_handler("EPOCH_COMPLETED", lambda: after_epoch(engine.state.epoch))
    engine.run([0], max_epochs=num_epochs)


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING and "shared" in record.name]


@pytest.mark.slow
def test_a_server_that_dies_gets_later_what_it_has_missed(server, tmp_path, caplog):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.json", "model.pt"):
        (folder / name).write_text(name)
    server.start()
    tracking = Tracking(folder, "test", server.uri)
    tracking.start({"rate": 0.1}, folder / "config.json")
    begun = time.time() * 1000
    started = time.monotonic()
    train(tracking, 4, lambda epoch: server.kill() if epoch == 2 else None)
    tracking.log_stage("max_max", {"best": 0.5}, [folder / "model.pt"])
    tracking.finish_stage("max_max")
    # Which take four minutes at a single call.
    assert time.monotonic() - started < 200, "MLflow's own retries were waited for"
    (said,) = warnings_of(caplog)
    assert said.startswith(
        f"MLflow at {server.uri} cannot be reached; the run continues, and entries for MLflow are kept in {folder}/"
    )
    assert len(Backlog(folder).entries()) == 5

    # The training is killed and begun again, the server being still away: more is missed, by another process' object.
    again = Tracking(folder, "test", server.uri)
    again.start({"rate": 0.1, "more": 1})
    again.log_stage("evaluation", {"iou": 0.6})
    assert again.known_parent_run() == tracking.known_parent_run() == json.loads((folder / "mlflow.json").read_text())["run_id"]
    again.finish()
    assert "the same command sends it" in warnings_of(caplog)[-1]
    ended = time.time() * 1000

    server.start()
    last = Tracking(folder, "test", server.uri)
    last.start({"rate": 0.1})
    last.finish()
    assert not (folder / BACKLOG).exists()
    client, runs = server.runs()
    assert runs.keys() == {"run", "run/max_max", "run/evaluation"}
    history = client.get_metric_history(runs["run/max_max"].info.run_id, "value")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    # They were measured before they were sent.
    assert all(begun <= point.timestamp <= ended for point in history)
    assert runs["run/max_max"].data.metrics["best"] == 0.5
    assert runs["run/max_max"].info.status == runs["run"].info.status == "FINISHED"
    assert runs["run/evaluation"].data.metrics == {"iou": 0.6}
    assert runs["run"].data.params == {"rate": "0.1", "more": "1"}
    files = {path.name: path.read_text() for path in (server.folder / "files").rglob("*.*")}
    assert files == {"config.json": "config.json", "model.pt": "model.pt"}


@pytest.mark.slow
def test_a_server_that_comes_after_the_training(server, tmp_path, caplog):
    """Nothing can be known of the runs before it is there; the next log makes them all."""
    tracking = Tracking(tmp_path / "run", "test", server.uri, parent_run_id="0" * 32)
    tracking.start({"rate": 0.1})
    assert tracking.known_parent_run() is None
    train(tracking, 2)
    assert len(warnings_of(caplog)) == 1
    server.start()
    tracking.log_stage("evaluation", {"iou": 0.6})
    assert not tracking.backlog
    client, runs = server.runs()
    assert runs.keys() == {"run", "run/max_max", "run/evaluation"}
    assert runs["run"].info.status == "RUNNING"
    assert [point.step for point in client.get_metric_history(runs["run/max_max"].info.run_id, "value")] == [1, 2]
    # It dies a second time: a second warning.
    server.kill()
    tracking.finish()
    assert len(warnings_of(caplog)) == 3


def num_connections(server):
    """How many have been made to a server that has answered none."""
    server.setblocking(False)
    number = 0
    while True:
        try:
            server.accept()[0].close()
        except BlockingIOError:
            return number
        number += 1


@pytest.mark.slow
def test_a_server_that_never_answers_does_not_hold_up_every_epoch(tmp_path, monkeypatch, caplog):
    """It takes connections, as one that hangs or lies behind a broken gateway does."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracking = Tracking(tmp_path / "run", "test", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        tracking.start({"rate": 0.1})
        train(tracking, 40)
        # Each epoch would ask at least once.
        assert num_connections(silent) < 20
        assert time.monotonic() - started < 200
        tracking.finish()
    assert len(warnings_of(caplog)) == 2
    # Tags, start, parameters, those of the stage, the epochs, the end.
    assert len(Backlog(tmp_path / "run").entries()) == 1 + 1 + 1 + 1 + 40 + 1


def test_a_refused_value_does_not_hold_up_the_others(make_tracking, runs_of, caplog):
    tracking = make_tracking()
    tracking.start({})
    tracking.log_stage("a", {"no : such?name*": 1.0})
    tracking.log_stage("a", {"iou": 0.5})
    assert runs_of()["output/a"].data.metrics == {"iou": 0.5}
    (said,) = warnings_of(caplog)
    assert "does not accept" in said
    assert "no : such?name*" in said
    assert not tracking.backlog


def test_a_refused_name_is_left_out_of_its_batch(make_tracking, runs_of, caplog):
    """All other metrics, parameters and tags of the batch are logged; one is told once of each name."""
    bad = "no : such?name*"
    good = {f"value {index}": float(index) for index in range(9)}
    tracking = make_tracking()
    tracking.start({**good, bad: 1})
    for step in range(3):
        tracking.log_metrics("a", {bad: 1.0, **good}, step)
    runs = runs_of()
    assert runs["output/a"].data.metrics == good
    assert runs["output"].data.params == {name: str(value) for name, value in good.items()}
    said = warnings_of(caplog)
    assert len(said) == 2
    assert all(bad in one and not any(name in one for name in good) for one in said)
    assert not tracking.backlog


def test_a_run_that_somebody_deletes_does_not_end_the_training(make_tracking, client, runs_of):
    tracking = make_tracking()
    tracking.start({})
    tracking.log_stage("a", {"iou": 0.4})
    for run in runs_of().values():
        client.delete_run(run.info.run_id)
    tracking.log_stage("a", {"iou": 0.5})
    tracking.log_stage("a", {"iou": 0.6})
    assert runs_of()["output/a"].data.metrics == {"iou": 0.6}
    assert not tracking.backlog


def test_what_a_killed_run_has_half_written_is_passed_over(tmp_path):
    backlog = Backlog(tmp_path)
    assert (bool(backlog), backlog.entries()) == (False, [])
    backlog.append({"a": 1})
    with backlog.file.open("a") as file:
        file.write('{"b": ')
    backlog.append({"c": 3})
    assert Backlog(tmp_path).entries() == [{"a": 1}, {"c": 3}]

    def refuse_c(entry):
        if "c" in entry:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        backlog.send(refuse_c)
    assert backlog.entries() == [{"c": 3}]
    assert backlog.send(lambda entry: None) == 1
    assert list(tmp_path.iterdir()) == []
