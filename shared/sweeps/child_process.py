"""A process that ends with the one that started it, however that one ends."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO

_PR_SET_PDEATHSIG = 1


def run_child(command: Sequence[str], log: IO[str], started: Callable[[subprocess.Popen[bytes]], None] | None = None) -> int:
    """Run a command to its end; return its exit status, negative for a signal.

    When this process is interrupted or terminated (SIGTERM), it kills the child first; on Linux the kernel does so also when
    this process is killed (SIGKILL).

    Args:
        command: program and arguments.
        log: gets what the command prints.
        started: called with the child, for who may want to stop it.
    """
    with _terminated_as_exit():
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=bound_to_parent())
        try:
            if started is not None:
                started(process)
            return process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


@contextmanager
def _terminated_as_exit() -> Iterator[None]:
    """SIGTERM as a SystemExit, so that ``finally`` blocks run."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    # Other threads can set no handlers.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def bound_to_parent() -> Callable[[], None] | None:
    """Prepare a child process before it becomes its command, so that it ends with the thread that starts it.

    None where the kernel knows no such thing.
    """
    if sys.platform != "linux":
        return None
    # Looked up here: between fork and exec no library should be loaded.
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have ended before.
        if os.getppid() != parent:
            os._exit(1)

    return bind
