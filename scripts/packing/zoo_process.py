"""Runs `zoo_checks.py`, which sees a packed bundle as its user does: no checkout and no PYTHONPATH within reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CHECKS = Path(__file__).with_name("zoo_checks.py")


@dataclass(frozen=True)
class Task:
    """One function of `zoo_checks.py`, called in a bundle's folder by a separate process."""

    name: str
    folder: Path
    check: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """How a task ended: `error` is empty if it passed."""

    name: str
    check: str
    error: str
    seconds: float


def run_tasks(tasks: Sequence[Task], environment: Mapping[str, str] | None = None) -> list[Result]:
    """Run tasks one after the other, each in a fork of a process that has imported torch and MONAI once.

    Args:
        tasks: what to do, in order.
        environment: variables that the process gets on top of this one's.

    Raises:
        RuntimeError: if that process itself fails.
    """
    with tempfile.TemporaryDirectory(prefix="checks-") as temporary:
        todo, report = Path(temporary, "tasks.json"), Path(temporary, "report.json")
        todo.write_text(json.dumps([asdict(task) for task in tasks], default=str))
        # The CUDA driver does not survive a fork; NVML shows whether there is a device without starting it.
        # And TorchScript writes constants in the order of a set of names, which without a fixed seed is another one each time.
        fixed = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1", "PYTHONHASHSEED": "0"}
        variables = {**os.environ, **fixed, **(environment or {})}
        for name in ("PYTHONPATH", "MLFLOW_TRACKING_URI"):
            variables.pop(name, None)
        command = [sys.executable, str(CHECKS), str(todo), str(report)]
        process = subprocess.run(command, cwd=temporary, env=variables, capture_output=True, text=True, check=False)
        if process.returncode or not report.is_file():
            raise RuntimeError(f"{CHECKS.name} failed: {process.stderr[-2000:]}")
        return [Result(**result) for result in json.loads(report.read_text())]
