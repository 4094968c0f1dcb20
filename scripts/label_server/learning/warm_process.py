"""A process that has already imported all that a training needs."""

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

# Pause after a training before the next process is prepared, so that the map of the new version comes first.
PAUSE_S = 15.0


class WarmProcess:
    """Runs MONAI configurations in a process that was started in advance and has done its imports.

    Each process runs one training and ends, so that no state is carried over and it can be killed at any time. It ends with this
    process, however this one ends. If it is not ready yet or has died, the training waits for a new process, which takes as long
    as without a warm one.

    Args:
        files: configurations whose components are imported; if empty, no process is kept ready.
        pause_s: seconds between a training and the start of the next process.
    """

    def __init__(self, files: Sequence[Path], pause_s: float = PAUSE_S) -> None:
        self._files, self._pause_s = [str(file) for file in files], pause_s
        self._lock = threading.Lock()
        self._waiting: subprocess.Popen[bytes] | None = None
        # The kernel ends a child together with the thread that started it, so this thread must stay alive.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="warm process")

    def prepare(self) -> None:
        """Start a process unless one is ready."""
        with self._lock:
            if self._files and (self._waiting is None or self._waiting.poll() is not None):
                self._waiting = self._started()

    def run(
        self, config_file: Sequence[Path], meta_file: Path, log: Path, started: Callable[[subprocess.Popen[bytes]], None]
    ) -> int:
        """Run configurations to the end and return the exit status, which is negative for a signal.

        Args:
            config_file: configuration files, as for ``python -m monai.bundle run``.
            meta_file: metadata file, as for ``python -m monai.bundle run``.
            log: file for the output of the process.
            started: called with the process, so that the caller can stop it.
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
            # It was killed, which its exit status will show.
            logger.warning("the process that was prepared for a training has ended unexpectedly")
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
