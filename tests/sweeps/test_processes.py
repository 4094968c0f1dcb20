"""The processes of a sweep: a training ends with its sweep, however that ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from shared.sweeps.child_process import run_child

from .conftest import CONFIG, script

DEADLINE_S = 900
# Writes its process's number, then waits for a file for ever.
ENDLESS = CONFIG | {
    "wait": "$time.sleep(0 if os.path.exists(@needs) else 1000)",
    "run": ["$(@folder / 'pid').write_text(str(os.getpid()))", "@wait", "@folders", "$@file.write_text(@metrics)"],
}


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, process=None):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a killed sweep leaves its training behind")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_training_ends_with_its_sweep(tmp_path, write_config, number):
    """Real processes: the sweep is killed in its training, which ends too; started again it goes on to its end."""
    out, needs = tmp_path / "out", tmp_path / "go"
    command = script("--config_file", write_config(ENDLESS, needs=str(needs)), "--vary", "fold", 0, 1, "--output_dir", out)
    pid_file = out / "fold=0/pid"
    sweep = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: pid_file.is_file() and pid_file.read_text(), sweep)
    training = int(pid_file.read_text())
    assert is_alive(training)
    os.kill(sweep.pid, number)
    sweep.communicate(timeout=DEADLINE_S)
    assert sweep.returncode == (-9 if number == signal.SIGKILL else 143)
    wait_until(lambda: not is_alive(training))
    assert not (out / "fold=0/evaluation").exists()

    needs.touch()
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    assert pd.read_csv(out / "sweep.csv")["fold"].tolist() == [0, 1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a killed sweep leaves its training behind")
def test_a_training_that_is_killed_after_its_scores_is_ended(tracked_folder, write_config):
    """Its scores are written before MLflow is told that it is finished, and the sweep is killed in between."""
    tracking = {"_target_": "shared.handlers.Tracking", "folder": "@output_dir", "tracking_uri": "@tracking_uri"}
    steps = ["$@tracking.start({})", "@folders", "$@file.write_text(@metrics)", "@wait", "$@tracking.finish()"]
    needs = tracked_folder / "go"
    config_file = write_config(ENDLESS | {"run": steps}, needs=str(needs), tracking=tracking | {"experiment": "test"})
    command = script("--config_file", config_file, "--vary", "fold", 0, "--output_dir", tracked_folder)
    client = MlflowClient(f"sqlite:///{tracked_folder}/mlruns.db")

    def statuses():
        runs = client.search_runs([client.get_experiment_by_name("test").experiment_id])
        return {run.info.run_name: run.info.status for run in runs}

    sweep = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until((tracked_folder / "fold=0/evaluation/metrics.json").is_file, sweep)
    sweep.kill()
    sweep.communicate(timeout=DEADLINE_S)
    wait_until(lambda: statuses() == {"output": "KILLED", "fold=0": "KILLED"})

    needs.touch()
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    assert statuses() == {"output": "FINISHED", "fold=0": "FINISHED"}
    log = tracked_folder / "fold=0/log.txt"
    before = log.read_bytes()
    subprocess.run(command, capture_output=True, check=True)
    assert log.read_bytes() == before


def test_an_interrupted_wait_ends_the_child(tmp_path, monkeypatch):
    waited = subprocess.Popen.wait
    children = []

    def interrupted(process, timeout=None):
        children.append(process.pid)
        monkeypatch.setattr(subprocess.Popen, "wait", waited)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with (tmp_path / "log.txt").open("w") as log, pytest.raises(KeyboardInterrupt):
        run_child([sys.executable, "-c", "import time; time.sleep(1000)"], log)
    assert not is_alive(children[0])


def test_a_child_says_how_it_ended(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with (tmp_path / "log.txt").open("w") as log:
        assert run_child([sys.executable, "-c", "print('hello'); raise SystemExit(7)"], log) == 7
    assert (tmp_path / "log.txt").read_text() == "hello\n"
    assert signal.getsignal(signal.SIGTERM) == before
