"""One run at a time in a folder: real processes, one of which is killed."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.engines.folder_lock import HOLDER, LOCK, FolderLock

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 600
CONFIG = {
    "imports": ["$import time", "$import pathlib"],
    "bundle_root": ".",
    "output_dir": None,
    "seconds": 0,
    "rate": 1,
    "run_folder": {"_target_": "shared.engines.RunFolder", "path": "@output_dir", "volatile": ["seconds"]},
    "run": ["$@run_folder.open()", "$time.sleep(@seconds)", "$@run_folder.close()"],
}


FORK = multiprocessing.get_context("fork")


def _hold(folder, says):
    """Hold a folder and say so; a child lives on, as the workers of a training's loader do for a while."""
    lock = FolderLock(folder)
    lock.acquire()
    child = os.fork()
    if child:
        says.send(child)
    time.sleep(600)


@pytest.fixture
def holder(tmp_path):
    """A process that holds ``tmp_path / "run"``."""
    says, hears = FORK.Pipe(duplex=False)[::-1]
    process = FORK.Process(target=_hold, args=(tmp_path / "run", says))
    process.start()
    child = hears.recv()
    yield process
    process.kill()
    os.kill(child, signal.SIGKILL)
    process.join()


@pytest.mark.slow
def test_another_process_is_told_who_holds_it(holder, tmp_path):
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(
        ValueError, match=f"^{tmp_path}/run is in use: process {holder.pid} on {socket.gethostname()} "
    ) as refusal:
        FolderLock(tmp_path / "run").acquire()
    assert json.loads((tmp_path / "run" / HOLDER).read_text())["since"] in str(refusal.value)
    assert "output_dir" in str(refusal.value)
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before

    # Killed, it lets the next one in.
    holder.kill()
    holder.join()
    with FolderLock(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / HOLDER).read_text())["pid"] == os.getpid()
        (tmp_path / "run/model.pt").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model.pt"]


def _holds(folder):
    with FolderLock(folder):
        return (folder / LOCK).is_file()


def test_within_a_process_a_run_is_begun_anew(tmp_path):
    abandoned = FolderLock(tmp_path / "run")
    abandoned.acquire()
    (tmp_path / "run/model.pt").touch()
    with FolderLock(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).is_file()
    # What has been abandoned holds nothing any more.
    with FORK.Pool(1) as pool:
        assert pool.apply(_holds, (tmp_path / "run",))
    abandoned.release()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model.pt"]


def test_a_folder_that_got_nothing_is_not_left(tmp_path):
    with FolderLock(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


@pytest.fixture
def start(tmp_path):
    """``monai.bundle run`` with `CONFIG` and other options."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    started = []

    def run(**options):
        options = {"config_file": tmp_path / "config.json", "output_dir": tmp_path / "run", **options}
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        command = [sys.executable, "-m", "monai.bundle", "run", *words]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_two_runs_of_a_bundle(start, tmp_path):
    first = start(seconds=600)
    deadline = time.monotonic() + DEADLINE_S
    while not (tmp_path / "run/config.json").is_file():
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    files = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    # The same run, and another one: neither is what the first one has to hear of.
    second, third = start(seconds=0), start(rate=2)
    for process in (second, third):
        said = process.communicate(timeout=DEADLINE_S)[0]
        assert process.returncode != 0
        assert f"{tmp_path}/run is in use: process {first.pid} on " in said
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == files
    first.kill()
    first.wait(DEADLINE_S)
    resumed = start(seconds=0)
    said = resumed.communicate(timeout=DEADLINE_S)[0]
    assert resumed.returncode == 0, said
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]
