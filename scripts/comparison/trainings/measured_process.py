"""Runs a command and keeps what it cost: seconds and peak memory, of the GPUs too, attempt by attempt.

python scripts/comparison/trainings/measured_process.py usage.json null python -m monai.bundle run ...

Each attempt is noted with its origin, the JSON after the file's name: the call of the comparison that it is of.

A process of its own, and a small one: what a process is forked from counts as its memory, and the peak that the system keeps of
ended children is that of the largest one. Attempts that were killed count with the seconds that were last written down. Memory
of the GPUs is what nvidia-smi says is in use, over what was in use before: on a GPU that others use too, theirs counts.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

_HEARTBEAT_S = 5.0
# What PyTorch has taken on a GPU it keeps: a look a second misses little.
_GPU_HEARTBEAT_S = 1.0
# ru_maxrss is in KiB on Linux, in bytes on macOS.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def measure(path: Path, command: Sequence[str], origin: Mapping[str, str] | None = None) -> int:
    """Run the command with this process's output; note its origin and cost in a JSON file; return its exit status."""
    attempts: list[dict[str, Any]] = read_attempts(path)
    attempts.append({"seconds": 0.0, "peak_bytes": None, "gpu_bytes": None, "status": None, "origin": origin})
    in_use = gpu_bytes_in_use()
    started, ended = time.perf_counter(), threading.Event()

    def note() -> None:
        attempts[-1]["seconds"] = round(time.perf_counter() - started, 2)
        now = gpu_bytes_in_use() if in_use is not None else None
        if in_use is not None and now is not None:
            attempts[-1]["gpu_bytes"] = max(attempts[-1]["gpu_bytes"] or 0, now - in_use)
        temporary = path.with_name(path.name + ".part")
        temporary.write_text(json.dumps(attempts) + "\n")
        temporary.replace(path)

    def keep_noting() -> None:
        while not ended.wait(_HEARTBEAT_S if in_use is None else _GPU_HEARTBEAT_S):
            note()

    path.parent.mkdir(parents=True, exist_ok=True)
    note()
    heart = threading.Thread(target=keep_noting, daemon=True)
    heart.start()
    try:
        status = _run_child()(command, sys.stdout)
    finally:
        ended.set()
        heart.join()
    attempts[-1]["peak_bytes"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _MAXRSS_UNIT
    attempts[-1]["status"] = status
    note()
    return status


def gpu_bytes_in_use() -> int | None:
    """Bytes in use on all GPUs together; None without GPUs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=_HEARTBEAT_S * 4, check=True)
        return sum(int(line) for line in found.stdout.split()) * 2**20
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def read_attempts(path: Path) -> list[dict[str, Any]]:
    """Costs of earlier attempts; empty if there were none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    attempts = found if isinstance(found, list) else []
    return [attempt for attempt in attempts if isinstance(attempt, dict) and isinstance(attempt.get("seconds"), int | float)]


def command_line(path: Path, command: Sequence[str], origin: Mapping[str, str] | None = None) -> list[str]:
    """The command that measures `command`, which the call of this origin runs, into the file at `path`."""
    return [sys.executable, str(Path(__file__).resolve()), str(path), json.dumps(origin), *command]


def _run_child() -> Callable[[Sequence[str], TextIO], int]:
    # Not as a part of its package, whose import takes seconds and half a gigabyte.
    file = Path(__file__).resolve().parents[3] / "shared" / "sweeps" / "child_process.py"
    spec = importlib.util.spec_from_file_location("child_process", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run_child: Callable[[Sequence[str], TextIO], int] = module.run_child
    return run_child


if __name__ == "__main__":
    code = measure(Path(sys.argv[1]), sys.argv[3:], json.loads(sys.argv[2]))
    # A signal's number as a shell gives it.
    os._exit(code if code >= 0 else 128 - code)
