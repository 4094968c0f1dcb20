"""``python ...`` as a process that is forked from one that has imported what it needs: a second each instead of ten."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMPORTED = [
    "monai.bundle",
    "fire",
    "mlflow",
    "ignite.engine",
    "matplotlib.figure",
    "shared.engines",
    "shared.inference",
    "shared.synthetic",
]
DEADLINE_S = 600


class WarmPython:
    """Runs Python's command lines, each in a process of its own, on the CPU and with one thread."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(IMPORTED)

    def run(self, arguments: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str]) -> int:
        """Run ``python <arguments>`` in a folder to its end; return its exit status. `log` gets what it prints."""
        process = self._context.Process(target=_become, args=(list(arguments), str(folder), str(log), dict(environment)))
        with pytest.MonkeyPatch.context() as patch:
            # The first of them starts the process from which all are forked.
            for name, value in {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}.items():
                patch.setenv(name, value)
            process.start()
        process.join(DEADLINE_S)
        if process.is_alive():
            process.terminate()
            process.join()
            raise TimeoutError(f"not finished after {DEADLINE_S} s: {' '.join(arguments)}\n{log.read_text()}")
        if (process.exitcode or 0) < 0:
            # A process that is forked while others of its kind start may die of that alone: then as users run it.
            return _run_cold(arguments, folder, log, environment)
        return process.exitcode or 0


def _run_cold(arguments: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str]) -> int:
    ours = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("ab") as file:
        process = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env={**os.environ, **environment, **ours},
            stdout=file,
            stderr=file,
            timeout=DEADLINE_S,
        )
    return process.returncode


def _become(arguments: list[str], folder: str, log: str, environment: dict[str, str]) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.environ.update(environment)
    os.environ.pop("PYTHONPATH", None)
    os.chdir(folder)
    if arguments[0] == "-m":
        sys.argv, sys.path[0] = arguments[1:], folder
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = list(arguments), str(Path(arguments[0]).parent)
        runpy.run_path(arguments[0], run_name="__main__")
