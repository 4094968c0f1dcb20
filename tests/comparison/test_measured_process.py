"""What a process costs, of processes that cost something known."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.comparison.trainings.attempts import seconds
from scripts.comparison.trainings.measured_process import command_line, read_attempts

MIB = 2**20


def start(path: Path, code: str) -> subprocess.Popen:
    return subprocess.Popen(command_line(path, [sys.executable, "-c", code]), stdout=subprocess.PIPE, text=True)


def test_seconds_memory_and_status_of_every_attempt(tmp_path):
    usage = tmp_path / "run" / "usage.json"
    first = start(usage, f"import time; held = bytearray(200 * {MIB}); time.sleep(0.3); print('done'); raise SystemExit(3)")
    assert first.communicate(timeout=600)[0] == "done\n"
    assert first.returncode == 3
    assert start(usage, "pass").wait(600) == 0
    attempts = read_attempts(usage)
    assert [attempt["status"] for attempt in attempts] == [3, 0]
    assert 0.3 <= attempts[0]["seconds"] < 600
    # Of the process alone: this one, from which it is started, holds more.
    assert 200 * MIB <= attempts[0]["peak_bytes"] < 260 * MIB
    assert attempts[1]["peak_bytes"] < 60 * MIB


@pytest.mark.parametrize("content", ["", "3", '[3, {}, {"seconds": "long"}]'])
def test_what_is_no_attempt_is_left_out(tmp_path, content):
    (tmp_path / "usage.json").write_text(content)
    assert read_attempts(tmp_path / "usage.json") == []
    assert seconds(tmp_path / "usage.json") == 0


def test_memory_of_the_gpus_is_what_is_added(tmp_path, monkeypatch):
    """nvidia-smi says of two GPUs what a file says, which the process replaces; it ends when it has been asked again."""
    program, used, more, asked = (tmp_path / name for name in ("nvidia-smi", "used", "more", "asked"))
    program.write_text(f"#!/bin/sh\ncat {used}\necho >> {asked}\n")
    program.chmod(0o755)
    used.write_text("100\n20\n")
    more.write_text("1124\n532\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    code = f"""
import pathlib, time
asked = pathlib.Path({str(asked)!r})
pathlib.Path({str(more)!r}).replace({str(used)!r})
before = asked.stat().st_size
# One answer may have been read before the change, and be counted after it.
while asked.stat().st_size < before + 2:
    time.sleep(0.05)
"""
    assert start(tmp_path / "usage.json", code).wait(600) == 0
    assert read_attempts(tmp_path / "usage.json")[0]["gpu_bytes"] == (1024 + 512) * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a killed process leaves its child behind")
def test_a_killed_attempt_counts_and_ends_its_child(tmp_path):
    usage, pid_file = tmp_path / "usage.json", tmp_path / "pid"
    code = f"import os, pathlib, time; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); time.sleep(1000)"
    process = start(usage, code)
    deadline = time.monotonic() + 600
    while not (pid_file.is_file() and pid_file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child = int(pid_file.read_text())
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=600)
    while _is_alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    attempts = json.loads(usage.read_text())
    assert len(attempts) == 1
    assert attempts[0]["status"] is None


def test_no_attempts(tmp_path):
    assert read_attempts(tmp_path / "none.json") == []


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
