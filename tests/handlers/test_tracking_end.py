"""What MLflow says of real processes that end in the middle of a run, and of those that go on with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.handlers import Tracking
from shared.handlers.runs import watchdog

ROOT = Path(__file__).parents[2]
DEADLINE_S = 600

TRAINING = """
import os, sys, time
from pathlib import Path
from shared.handlers import Tracking
folder, way = Path(sys.argv[1]), sys.argv[2]
tracking = Tracking(folder, "test")
tracking.start({"rate": 0.1})
tracking.log_stage("done", {"loss": 1.0})
tracking.finish_stage("done")
tracking.begin_stage("max_max")
if way == "SIGTERM":
    # Workers that the same signal ends, and that are ended on the way out, as a trainer does.
    from torch.utils.data import DataLoader
    batches = iter(DataLoader(range(10**6), num_workers=2))
    next(batches)
(folder / "began").touch()
if way == "error":
    raise ValueError("the loss is not finite")
if way == "exit":
    sys.exit("error: 2 runs failed")
if way == "native":
    os.abort()
if way == "finish":
    tracking.finish_stage("max_max")
    tracking.finish()
    sys.exit()
try:
    while True:
        time.sleep(0.05)
finally:
    if way == "SIGTERM":
        time.sleep(1)
        batches._shutdown_workers()
"""
SIGNALS = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL}

pytestmark = pytest.mark.slow


def said(folder):
    """Where `end` keeps what a training said."""
    return folder.with_name("said.txt")


def end(folder, way):
    """Run a training that ends in this way: its exit status."""
    with said(folder).open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", TRAINING, folder, way],
            cwd=ROOT,
            start_new_session=True,
            stderr=log,
            # Tests that a shell runs in the background ignore Ctrl-C, and so would this process.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    deadline = time.monotonic() + DEADLINE_S
    while way in SIGNALS and not (folder / "began").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if way in SIGNALS:
        # To all of its group, as a terminal and a scheduler send it.
        os.killpg(process.pid, SIGNALS[way])
    return process.wait(DEADLINE_S)


def statuses(runs_of):
    return {name: run.info.status for name, run in runs_of().items()}


def wait_for(runs_of, expected):
    deadline = time.monotonic() + DEADLINE_S
    while statuses(runs_of) != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    assert statuses(runs_of) == expected


@pytest.mark.parametrize(
    ("way", "code", "status"),
    [
        ("error", 1, "FAILED"),
        ("exit", 1, "FAILED"),
        ("SIGINT", -signal.SIGINT, "KILLED"),
        ("SIGTERM", 128 + signal.SIGTERM, "KILLED"),
        ("SIGKILL", -signal.SIGKILL, "KILLED"),
        ("native", -signal.SIGABRT, "KILLED"),
    ],
)
def test_an_end_before_the_end(tracked_folder, runs_of, way, code, status):
    assert end(tracked_folder, way) == code
    assert ("the same command resumes it" in said(tracked_folder).read_text()) == (way in ("SIGINT", "SIGTERM"))
    wait_for(runs_of, {"output": status, "output/max_max": status, "output/done": "FINISHED"})
    if way == "SIGKILL":
        before = {name: run.info.run_id for name, run in runs_of().items()}
        again = Tracking(tracked_folder, "test")
        again.start({"rate": 0.1})
        again.begin_stage("max_max")
        assert statuses(runs_of) == {"output": "RUNNING", "output/max_max": "RUNNING", "output/done": "FINISHED"}
        assert end(tracked_folder, "finish") == 0
        assert set(statuses(runs_of).values()) == {"FINISHED"}
        assert {name: run.info.run_id for name, run in runs_of().items()} == before
        again._end.close()


def test_a_run_that_another_process_goes_on_with_is_not_marked(tracked_folder, make_tracking, runs_of):
    killed, again = make_tracking(), make_tracking()
    killed.start({})
    again.start({})
    watchdog.mark_killed(killed.uri, killed.parent_run(), killed._end.process, None)
    assert statuses(runs_of) == {"output": "RUNNING"}
    killed._log_end("FAILED")
    assert statuses(runs_of) == {"output": "RUNNING"}
    watchdog.mark_killed(again.uri, again.parent_run(), again._end.process, None)
    assert statuses(runs_of) == {"output": "KILLED"}
    # A folder that has been deleted is not made again.
    watchdog.mark_killed(f"sqlite:///{tracked_folder}/none.db", "x", "y", f"{tracked_folder}/none.db")
    assert not (tracked_folder / "none.db").exists()
    killed._end.close()
    again._end.close()


def test_the_machine_is_measured_by_key(make_tracking, client, runs_of, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    tracking = make_tracking(system_metrics=True)
    tracking.start({})
    run_id, name = tracking.parent_run(), "system/cpu_utilization_percentage"
    deadline = time.monotonic() + DEADLINE_S
    while not client.get_metric_history(run_id, name) and time.monotonic() < deadline:
        time.sleep(0.1)
    tracking.finish()
    assert client.get_metric_history(run_id, name)
    assert runs_of()["output"].info.status == "FINISHED"
    assert not any(metric.startswith("system/") for metric in _metrics_without_key(make_tracking, client))


def _metrics_without_key(make_tracking, client):
    tracking = make_tracking(run_name="plain")
    before = set(client.get_run(tracking.parent_run()).data.metrics)
    tracking.start({})
    tracking.finish()
    return set(client.get_run(tracking.parent_run()).data.metrics) - before
