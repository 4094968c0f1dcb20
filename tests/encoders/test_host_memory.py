"""Freed memory that stays with the process, in processes of their own."""

import os
import subprocess
import sys

import pytest

# Writes to 64 MiB and frees them, over and over: how many new pages the system had to clear for the last ten times.
SCRIPT = """
import resource, torch
from shared.encoders.host_memory import keep_freed_memory

print(keep_freed_memory())
faults = []
for _ in range(40):
    torch.ones(2**24)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[-11])
"""
PAGES = 2**26 // os.sysconf("SC_PAGE_SIZE") if sys.platform.startswith("linux") else 0


@pytest.mark.skipif("glibc" not in os.confstr("CS_GNU_LIBC_VERSION") if PAGES else True, reason="needs glibc")
@pytest.mark.parametrize("chosen", [{}, {"MALLOC_TRIM_THRESHOLD_": "131072"}], ids=["as it is", "set by the user"])
def test_memory_is_asked_for_once(chosen):
    environment = {name: text for name, text in os.environ.items() if name != "LD_PRELOAD"} | chosen
    process = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, check=True)
    is_kept, faults = process.stdout.split()
    assert is_kept == str(not chosen)
    if chosen:
        # Large pages of the system may make them fewer than pages.
        assert int(faults) > 10
    else:
        assert int(faults) < PAGES
