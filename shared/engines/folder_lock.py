"""One process at a time works in a folder; another one gets an error that names it."""

from __future__ import annotations

import json
import logging
import os
import socket
from datetime import datetime
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from ..writers.atomic import atomic_path
from .distributed import broadcast_from_first, rank

logger = logging.getLogger(__name__)

LOCK, HOLDER = ".lock", ".holder.json"
# A killed process that held it may still be giving back its memory.
_PATIENCE_S = 3.0


class FolderLock:
    """A folder that is this process's own while it is held.

    The lock (flock, through `filelock`) is on ``<folder>/.lock``; next to it ``.holder.json`` says who has it. Both are removed
    when the lock is released. The system takes the lock back when its process ends, by kill -9 too: then the files stay, and
    the next one takes the folder over. Of the processes of a distributed run rank 0 holds it for all. Within a process it may
    be acquired again, as when a training is begun again in a notebook in which it has failed.

    Between machines this holds as far as their file system does, see `shared.inference.cohort.row_store.RowStore`.

    Args:
        folder: it is made when the lock is acquired, and removed if it is still empty when the lock is released.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._lock: FileLock | None = None
        self._made = False

    def acquire(self) -> None:
        """Hold the folder.

        Raises:
            ValueError: on every process, if another run holds it, naming its host, its process and since when.
        """
        refusal = broadcast_from_first(self._acquire() if rank() == 0 else None)
        if refusal is not None:
            raise ValueError(refusal)

    def release(self) -> None:
        """Give it back; nothing happens where it is not held."""
        if self._lock is None or not self._lock.is_locked:
            return
        # While it is held, so that no other process's are removed.
        for name in (HOLDER, LOCK):
            (self.folder / name).unlink(missing_ok=True)
        self._lock.release(force=True)
        self._lock = None
        if self._made and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def __enter__(self) -> FolderLock:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.release()

    def _acquire(self) -> str | None:
        """Why the folder cannot be held; None if it is."""
        self._made = not self.folder.is_dir()
        self.folder.mkdir(parents=True, exist_ok=True)
        # One object a path and process, which counts.
        lock = FileLock((self.folder / LOCK).resolve(), is_singleton=True, thread_local=False)
        try:
            lock.acquire(timeout=_PATIENCE_S)
        except Timeout:
            return (
                f"{self.folder} is in use: {_holder(self.folder / HOLDER)}. Wait for that run to end, stop it, or give another "
                "--output_dir; nothing was changed."
            )
        self._lock = lock
        with atomic_path(self.folder / HOLDER) as temporary:
            temporary.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": _now()}) + "\n")
        return None


def _holder(file: Path) -> str:
    try:
        holder = json.loads(file.read_text())
        return f"process {holder['pid']} on {holder['host']} has held it since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"it is held by another process, which has not recorded its id in {file}"


def _now() -> str:
    return datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
