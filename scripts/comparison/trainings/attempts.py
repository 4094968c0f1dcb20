"""What trainings and their maps have cost, which calls made them, and what their logs say went wrong."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from scripts.options.engine import EMBEDDED
from shared.inference.cohort.finished import FINISHED
from shared.inference.cohort.row_store import TABLE_NAME
from shared.writers import read_rows

from ..json_file import read_object
from .baselines import TRAINED
from .measured_process import read_attempts

# In the folder of a training: of its own attempts, and of those of its inference.
USAGE, INFERENCE_USAGE = "usage.json", "inference_usage.json"


def attempts_in(folder: Path) -> list[dict[str, Any]]:
    """All attempts at a training and at its maps."""
    return [attempt for name in (USAGE, INFERENCE_USAGE) for attempt in read_attempts(folder / name)]


def seconds(usage: Path) -> float:
    """Sum over all attempts: those of an interrupted training continue in the next one."""
    return sum(attempt["seconds"] for attempt in read_attempts(usage))


def seconds_of_colours(folder: Path) -> float:
    """Seconds in which the colours of a baseline were fitted.

    Raises:
        ValueError: naming the file that says it and cannot be read.
    """
    remedy = "Delete its folder: the same command makes it again"
    return float(read_object(folder / TRAINED, remedy, ("seconds",))["seconds"])


def peak(folders: Sequence[Path], what: str) -> int | None:
    """The most ``peak_bytes`` or ``gpu_bytes`` of any attempt; None where there is none."""
    attempts = (attempt for folder in folders for attempt in attempts_in(folder))
    return max((attempt[what] for attempt in attempts if attempt.get(what)), default=None)


def mean_seconds(maps: Sequence[Path], usages: Sequence[Path]) -> float:
    """Seconds that an image adds to a run of many, mean over the maps of several trainings; NaN where there are none.

    While an image's files are written the next one is computed, so the sum of the images' own seconds is more than what they
    took together, and at most twice as much. What their process took is more as well, by its start. The lesser of both is
    taken, the process's only where it can be the one that made all the maps. What an encoder took to embed the images, once for
    all heads on it, is added.

    Args:
        maps: a folder per training, with its table.
        usages: what the process that filled each folder has cost, see `read_attempts`; the file may be missing.
    """
    total, number = 0.0, 0
    for folder, usage in zip(maps, usages, strict=True):
        rows = [row for row in read_rows(folder / TABLE_NAME).values() if row["status"] in FINISHED]
        alone, of_process = sum(float(row["seconds"]) for row in rows), seconds(usage)
        total += min(alone, of_process) if of_process >= alone / 2 else alone
        total += _seconds_of_embedding(folder, {row["slide"] for row in rows})
        number += len(rows)
    return total / number if number else math.nan


def _seconds_of_embedding(maps: Path, names: Collection[str]) -> float:
    """Sum of the seconds in which the images were embedded, of maps from stored features; 0 of others."""
    note = maps / EMBEDDED
    if not note.is_file():
        return 0.0
    folder = read_object(note, "Delete the folder of the maps to make them again", ("folder",))["folder"]
    rows = read_rows(Path(folder) / TABLE_NAME)
    return sum(float(row["seconds"]) for name, row in rows.items() if name in names and row["status"] in FINISHED)


def last_line(log: Path) -> str:
    """The last informative line of a log, which is the error of a traceback.

    Of an error that MONAI wraps, the line says what was wrong and not in which item.
    """
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "it left no log"
    errors = [line for line in lines if line.startswith("error: ") or _is_error(line)]
    causes = [line for line in errors if not line.startswith("RuntimeError: Failed to")]
    return (causes or errors or lines or ["it printed no message"])[-1][:500]


def _is_error(line: str) -> bool:
    name = line.partition(":")[0]
    return name.replace(".", "").isidentifier() and name.endswith(("Error", "Exception", "Interrupt", "Failures"))
