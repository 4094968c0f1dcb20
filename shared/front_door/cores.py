"""How many cores this process may use."""

from __future__ import annotations

import os

MOST_PROCESSES = 8


def available_cores() -> int:
    """The cores that the scheduler gives this process, which may be fewer than the machine has, as on a cluster. Limits of CPU
    time, such as those of ``docker --cpus``, are not seen."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def reading_processes() -> int:
    """How many processes read alongside this one: one for each core, `MOST_PROCESSES` at most; 0 where there is one core.

    Processes that torchrun starts on one machine share its cores.
    """
    cores = available_cores() // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return min(cores, MOST_PROCESSES) if cores > 1 else 0
