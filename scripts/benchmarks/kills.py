"""Kill -9 at random moments, and compare weights, features and maps after restarts with those of undisturbed runs."""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
import torch

from scripts.options.numbers import COUNT, SEED

from .kill_workflows import REPOSITORY, Workflow, workflows

DEADLINE_S = 3600
# Files that depend on the time, the process or MLflow.
NOT_COMPARED = {"mlflow.json", "mlruns.db", "mlruns.db-journal", "config.json", "mlflow_missed.jsonl"}
# What a kill leaves of small files that several processes may write, see `shared.writers.atomic.contended_path`.
LEFT_BEHIND = re.compile(r"\.[0-9a-f]{12}(\.part)?$")
VOLATILE_COLUMNS = {"seconds", "worker", "attempts", "path", "fingerprint", "image"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workflows", nargs="+", choices=workflows(), default=list(workflows()), metavar="NAME")
    parser.add_argument("--kills", type=COUNT, default=20, help="kills per workflow (default 20)")
    parser.add_argument("--seed", type=SEED, default=0, help="seed for the moments of the kills")
    parser.add_argument("--folder", type=Path, help="new folder for data, results and logs (default: a temporary one)")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Kill every workflow at moments drawn uniformly from the time that it takes undisturbed.

    A killed run is restarted in the same folder, and killed again at the next moment. A run that ends before its moment is
    compared with the undisturbed one, and the next run begins in a new folder. The last restart is not killed.

    Raises:
        ValueError: if `--folder` already contains a folder named like a workflow.
        RuntimeError: if the results of a run differ, or a run fails.
    """
    results = {}
    with _folder(arguments.folder) as folder:
        for name in arguments.workflows:
            results[name] = _measure(workflows()[name], folder / name, arguments.kills, random.Random(f"{arguments.seed} {name}"))
            print(_row(name, results[name]), flush=True)
    different = [name for name, result in results.items() if result["differences"]]
    if different:
        raise RuntimeError(
            f"results differ after kills: {json.dumps({name: results[name]['differences'] for name in different})}"
        )
    return results


class _folder:
    """The given folder, or a temporary one."""

    def __init__(self, given: Path | None) -> None:
        self.given, self.made = given, None if given else tempfile.TemporaryDirectory(prefix="kills-")

    def __enter__(self) -> Path:
        return self.given.resolve() if self.given else Path(self.made.name)  # type: ignore[union-attr]

    def __exit__(self, *_: object) -> None:
        if self.made is not None:
            self.made.cleanup()


def _measure(workflow: Workflow, folder: Path, num_kills: int, moments: random.Random) -> dict[str, Any]:
    if folder.exists():
        raise ValueError(f"{folder} already exists: give another --folder, or remove it")
    source = folder / "data"
    source.parent.mkdir(parents=True)
    workflow.make_data(source)
    undisturbed = _Run(workflow, source, folder / "undisturbed")
    started = time.monotonic()
    undisturbed.go(None)
    duration_s = time.monotonic() - started
    result: dict[str, Any] = {"undisturbed_s": round(duration_s, 1), "kills": 0, "runs": 0, "differences": []}
    run = None
    while result["kills"] < num_kills or run is not None:
        run = run or _Run(workflow, source, folder / f"killed_{result['runs']}")
        moment_s = moments.uniform(0, duration_s) if result["kills"] < num_kills else None
        started = time.monotonic()
        if run.go(moment_s):
            result["runs"] += 1
            if not run.was_killed:
                # The machine is less busy than before: moments after the end would kill nothing.
                duration_s = min(duration_s, time.monotonic() - started)
            found = list(differences(undisturbed.out, run.out))
            result["differences"] += [f"{run.out.parent.name}: {line}" for line in found]
            if not found:
                shutil.rmtree(run.folder)
            run = None
        else:
            result["kills"] += 1
    result["files"] = len(list(_compared(undisturbed.out)))
    return result


class _Run:
    """A run with its own copy of the data and its own results."""

    def __init__(self, workflow: Workflow, source: Path, folder: Path) -> None:
        self.workflow, self.folder, self.data, self.out = workflow, folder, folder / "data", folder / "out"
        self.was_killed = False
        shutil.copytree(source, self.data)

    def go(self, moment_s: float | None) -> bool:
        """Run to the end, or kill it with all its children after `moment_s` seconds; return whether it has ended.

        Raises:
            RuntimeError: if it ends with an error.
        """
        variables = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | variables
        with (self.folder / "log.txt").open("a") as log:
            process = subprocess.Popen(
                self.workflow.command(self.data, self.out),
                cwd=REPOSITORY,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            code = process.wait(DEADLINE_S if moment_s is None else moment_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self.was_killed = True
            if moment_s is None:
                raise RuntimeError(f"{self.folder}: still running after {DEADLINE_S} s") from None
            return False
        if code:
            tail = "\n".join((self.folder / "log.txt").read_text().splitlines()[-15:])
            raise RuntimeError(f"{self.folder}: a run ended with exit status {code}:\n{tail}")
        return True


def differences(ours: Path, theirs: Path) -> Iterator[str]:
    """The differences between two folders of results, in the names of their files or in the files' content."""
    names = set(_compared(ours)), set(_compared(theirs))
    yield from (f"{name} is in only one of the two folders" for name in sorted(names[0] ^ names[1]))
    yield from (name for name in sorted(names[0] & names[1]) if not _is_same(name, ours, theirs))


def _compared(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        is_of_a_run = not {"mlruns", "rows"} & set(relative.parts) and path.name not in NOT_COMPARED
        if path.is_file() and is_of_a_run and not LEFT_BEHIND.search(path.name):
            yield relative.as_posix()


def _is_same(name: str, of_ours: Path, of_theirs: Path) -> bool:
    ours, theirs = of_ours / name, of_theirs / name
    if ours.suffix == ".pt":
        first, second = (torch.load(file, weights_only=True, map_location="cpu") for file in (ours, theirs))
        return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    if ours.name.endswith(".tif"):
        first, second = (_levels(file) for file in (ours, theirs))
        return len(first) == len(second) and all(map(np.array_equal, first, second))
    if ours.suffix == ".h5":
        return _arrays(ours) == _arrays(theirs)
    if ours.suffix == ".csv":
        return _rows(ours, of_ours) == _rows(theirs, of_theirs)
    if ours.suffix == ".json":
        return _text(ours, of_ours) == _text(theirs, of_theirs)
    return ours.read_bytes() == theirs.read_bytes()


def _levels(file: Path) -> list[np.ndarray]:
    with tifffile.TiffFile(file) as tiff:
        return [level.asarray() for level in tiff.series[0].levels]


def _arrays(file: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with h5py.File(file) as opened:
        opened.visititems(lambda name, item: found.update({name: item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None)
    return found


def _rows(file: Path, folder: Path) -> list[str]:
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    kept = [{name: value for name, value in row.items() if name not in VOLATILE_COLUMNS} for row in rows]
    return sorted(str(row).replace(str(folder.parent), "") for row in kept)


def _text(file: Path, folder: Path) -> str:
    return file.read_text().replace(str(folder.parent), "")


def _row(name: str, result: dict[str, Any]) -> str:
    same = "the same" if not result["differences"] else "DIFFERENT"
    return (
        f"{name:<16} {result['undisturbed_s']:7.1f} s undisturbed  {result['kills']:3d} kills  {result['runs']:3d} runs  "
        f"{result['files']:3d} files  {same}"
    )
