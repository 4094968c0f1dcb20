"""How many cores this process may use."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Those that the system gives this process, which may be fewer than the machine has: on a cluster, in a container."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1
