"""One check: a command, how its result is read, and the row that it becomes."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PASS, FAIL, SKIP = "PASS", "FAIL", "SKIP"
_ERROR = re.compile(r"(error|[\w.]*(Error|Exception|Failure|Failures)): ")
_WRAPPER = "RuntimeError: Failed to "
_LONGEST = 300


@dataclass(frozen=True)
class Check:
    """A check in a separate process, so that a device failure in one does not affect the next.

    Args:
        name: in the table, and of the log.
        command: after the Python interpreter.
        describe: the table entry for a process that ended well; raises a ValueError if its result is wrong.
        skipped: why it cannot be made here; None where it can.
    """

    name: str
    command: Sequence[str]
    describe: Callable[[str], str]
    skipped: str | None = None


@dataclass(frozen=True)
class Row:
    """The result of a check."""

    name: str
    result: str
    said: str
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.result}  {self.name:<28}{self.seconds:6.0f} s  {self.said}"


def run_check(check: Check, python: str, folder: Path, timeout_s: float) -> Row:
    """Make a check, at most for so long; what its process printed goes to ``<name>.log`` in a folder."""
    if check.skipped is not None:
        return Row(check.name, SKIP, check.skipped)
    if timeout_s <= 0:
        return Row(check.name, SKIP, "skipped, because the time was up")
    log = folder / f"{check.name.replace(' ', '_')}.log"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    started = time.monotonic()
    try:
        with log.open("w") as output:
            process = subprocess.run(
                [python, *check.command], env=environment, stdout=output, stderr=subprocess.STDOUT, timeout=timeout_s, check=False
            )
        text = log.read_text(errors="replace")
        if process.returncode:
            raise ValueError(f"status {process.returncode}: {_last_error(text)}")
        result, said = PASS, check.describe(text)
    except (ValueError, OSError, KeyError) as error:
        result, said = FAIL, f"{error} (see {log})"
    except subprocess.TimeoutExpired:
        result, said = FAIL, f"still running after {timeout_s:.0f} s (see {log})"
    return Row(check.name, result, said, time.monotonic() - started)


def last_line(text: str) -> str:
    """The last line of a process's output."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _last_error(text: str) -> str:
    """The cause of a failure, not MONAI's error about the configuration's item that it broke."""
    errors = [line.strip() for line in text.splitlines() if _ERROR.match(line) and _WRAPPER not in line]
    return (errors[-1] if errors else last_line(text))[:_LONGEST]
