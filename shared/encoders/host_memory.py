"""What keeps the memory of a CPU's forward passes from going back and forth between the process and the system."""

from __future__ import annotations

import ctypes
import os
import sys

# The numbers of malloc.h in glibc.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
# The largest value that mallopt takes.
_KEPT_BYTES = 2**31 - 1
_SET_BY_USER = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next allocations, up to 2 GiB.

    The feature maps of an encoder are tens of megabytes each. By default glibc returns each of them to the system as soon as it
    is freed, and the next forward pass waits for the system to clear new pages: about half of the processor time of an
    EfficientNet-Lite0 on a CPU. Results do not change; the process stays larger between forward passes.

    Returns:
        whether it was done: not without glibc, nor where the user has chosen an allocator or its settings in the environment.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _SET_BY_USER):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))
