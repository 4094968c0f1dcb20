"""One line of the doctor's report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "PROBLEM"


@dataclass(frozen=True)
class Finding:
    """One check of the machine: its result, and what to do about it.

    Args:
        name: of what was looked at.
        level: whether everything works, something optional is missing, or something will fail.
        found: what was found, without a full stop.
        remedy: what to do; empty where nothing has to be done.
    """

    name: str
    level: Level
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        """
        >>> print(Finding("disk", Level.PROBLEM, "0.1 GiB free", "free some space"))
        PROBLEM  disk                 0.1 GiB free: free some space
        """
        return f"{self.level.value:8} {self.name:20} {self.found}{': ' if self.remedy else ''}{self.remedy}"


Check = Callable[[], Iterator[Finding]]


def findings_of(check: Check) -> Iterator[Finding]:
    """The findings of a check; a check that fails is reported as a finding, so that the others still run."""
    name = check.__name__.replace("_", " ")
    try:
        yield from check()
    except ModuleNotFoundError as error:
        yield Finding(name, Level.NOTE, f"not checked, because {error.name} is missing")
    except Exception as error:  # a broken installation raises anything
        yield Finding(check.__name__.replace("_", " "), Level.PROBLEM, f"could not be checked ({type(error).__name__}: {error})")
