"""How many cores this process may use."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Those that the scheduler gives this process, which may be fewer than the machine has, as on a cluster. Limits of CPU time,
    such as those of ``docker --cpus``, are not seen."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1
