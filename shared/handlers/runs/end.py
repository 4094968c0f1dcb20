"""How a run ends that does not get to its end: by an error, by a signal, or by kill -9."""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from . import watchdog as watchdog_script

logger = logging.getLogger(__name__)


class EndWatch:
    """Says how a process ended in the middle of a run, while it is open.

    An error, Ctrl-C and SIGTERM are recorded by the process itself on its way out; SIGTERM ends it as an exit with status 143,
    so that there is a way out. Other ends are recorded by `shared.handlers.runs.watchdog`, a separate process.

    Args:
        record: takes ``FAILED`` or ``KILLED`` at the end of the process.
    """

    def __init__(self, record: Callable[[str], None]) -> None:
        self.process = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
        self._record, self._pid, self._run_id = record, os.getpid(), ""
        self._is_open, self._is_closed_by_its_run = False, False

    def open(self, is_closed_by_its_run: bool) -> None:
        """From here on the end of this process is recorded.

        Args:
            is_closed_by_its_run: a process that ends before `close` has failed, also where it ends in order.
        """
        self._is_closed_by_its_run |= is_closed_by_its_run
        if not self._is_open:
            atexit.register(self._at_exit)
            _termination.install()
        self._is_open = True

    def watch(self, uri: str, run_id: str, database: Path | None) -> None:
        """Have a run watched from outside this process."""
        self._run_id = run_id
        _send({"uri": uri, "run_id": run_id, "process": self.process, "database": str(database) if database else None})

    def close(self) -> None:
        """The run has ended, or its end has been recorded."""
        atexit.unregister(self._at_exit)
        self._is_open = False
        if self._run_id:
            _send({"ended": self._run_id})
            self._run_id = ""

    def _at_exit(self) -> None:
        if os.getpid() != self._pid:
            return
        # Python keeps the error that has ended it.
        error = getattr(sys, "last_value", None)
        try:
            if _termination.has_come or isinstance(error, KeyboardInterrupt):
                logger.warning("this run was interrupted; the same command resumes it")
                self._record("KILLED")
            elif error is not None or self._is_closed_by_its_run:
                self._record("FAILED")
        except Exception as problem:
            logger.debug(f"the end of the run was not recorded: {problem}")
        self.close()


class _Termination:
    """SIGTERM as an exit, once: a second one ends the process at once. Where somebody else listens to it nothing changes."""

    def __init__(self) -> None:
        self.has_come, self._pid = False, 0

    def install(self) -> None:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            self._pid = os.getpid()
            signal.signal(signal.SIGTERM, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != self._pid:
            # A process that was forked from the training.
            os.kill(os.getpid(), number)
            return
        self.has_come = True
        # PyTorch makes an error of a loader's worker that ends, and the signal may have gone to the whole process group.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        sys.exit(128 + number)


_termination = _Termination()


@cache
def _watchdog(pid: int) -> subprocess.Popen[bytes] | None:
    """The one of this process; None where none can be started."""
    # In a separate session: a signal to the group of the training is not for it.
    try:
        return subprocess.Popen(
            [sys.executable, watchdog_script.__file__, str(pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        logger.debug(f"no watchdog: {error}")
        return None


def _send(entry: dict[str, Any]) -> None:
    watchdog = _watchdog(os.getpid())
    if watchdog is None or watchdog.stdin is None:
        return
    try:
        watchdog.stdin.write(json.dumps(entry).encode() + b"\n")
        watchdog.stdin.flush()
    except OSError as error:
        logger.debug(f"the watchdog has gone: {error}")
