"""A process that has imported all that a training needs before anybody asks for one."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shared.sweeps.child_process import bound_to_parent

logger = logging.getLogger(__name__)

# After a training, before the next process is prepared: the map of what was trained comes first.
PAUSE_S = 15.0


class WarmProcess:
    """Runs configurations of MONAI in a process that was started and has imported before.

    Each process runs one training and ends: what one leaves behind does not meet the next, and it can be killed at any time. It
    ends with this process, however this one ends. Where it is not ready yet, or has died, a training waits for a new one as long
    as it would have without.

    Args:
        files: configurations whose components are imported; none: no process is kept ready.
        pause_s: seconds after a training until the next process is started.
    """

    def __init__(self, files: Sequence[Path], pause_s: float = PAUSE_S) -> None:
        self._files, self._pause_s = [str(file) for file in files], pause_s
        self._lock = threading.Lock()
        self._waiting: subprocess.Popen[bytes] | None = None
        # The kernel ends a child with the thread that has started it: this one stays.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="warm process")

    def prepare(self) -> None:
        """Have a process ready, unless one is."""
        with self._lock:
            if self._files and (self._waiting is None or self._waiting.poll() is not None):
                self._waiting = self._started()

    def run(
        self, config_file: Sequence[Path], meta_file: Path, log: Path, started: Callable[[subprocess.Popen[bytes]], None]
    ) -> int:
        """Run what configurations describe to its end; return the exit status, negative for a signal.

        Args:
            config_file: as ``python -m monai.bundle run`` takes it.
            meta_file: the same.
            log: gets what is printed.
            started: called with the process, for who may want to stop it.
        """
        with self._lock:
            process, self._waiting = self._waiting, None
        if process is None or process.poll() is not None:
            process = self._started()
        started(process)
        log.touch()
        try:
            assert process.stdin is not None
            request = {"config_file": [*map(str, config_file)], "meta_file": str(meta_file), "log": str(log)}
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            # It was killed, and its status says so.
            logger.warning("the process that was kept ready for a training has ended")
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            self._prepare_later()

    def _started(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"{__package__}.warm_worker", *self._files]

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(command, stdin=subprocess.PIPE, preexec_fn=bound_to_parent())

        return self._starter.submit(start).result()

    def _prepare_later(self) -> None:
        timer = threading.Timer(self._pause_s, self.prepare)
        timer.daemon = True
        timer.start()
