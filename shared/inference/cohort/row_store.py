"""The state of each image of an output folder, and which process works on it; many processes may share the folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson
from filelock import BaseFileLock, FileLock, Timeout

from ...writers.atomic import atomic_path
from ...writers.storage import storage_errors
from ...writers.table import check_table, write_rows
from ..row import Row

TABLE_NAME = "slides.csv"
ROWS_NAME = "rows"
# No slide's lock has this name: those end in .lock.
TABLE_LOCK_NAME = ".table"
RESERVATION_SUFFIX = ".next"
# That every table has.
COLUMNS = ("slide", "status")
# Rewriting a table of thousands of rows takes as long as mapping a tile: at most a twentieth of the time goes there.
TABLE_SHARE = 0.05


class RowStore:
    """Rows of images and claims on them.

    ``rows/<name>.json`` is the truth. It is written by the process that holds the image's claim, under a temporary name that is
    renamed. ``slides.csv`` is made of these files and replaced as a whole, by one process at a time; rows of images that have
    no file are left in it.

    A claim is a lock (flock, through `filelock`) on ``rows/<name>.lock``, an empty file that stays. The system takes the lock
    back when its process ends, by kill -9 too, so there is no need to guess from dates or process numbers whether a claim is
    still good. Between machines this holds as far as their file system does:

    - NFS: a lock of the server, on Linux since 2.6.12. Those of a machine that is gone are free after NFSv4's lease (90 s
      unless set otherwise); NFSv3 needs lockd. Mounted with ``nolock`` or ``local_lock=flock`` or ``all``, machines do not see
      each other's locks.
    - Lustre: mount with ``flock``; ``localflock`` is for one machine. CephFS, GPFS: as they are. BeeGFS: with
      ``tuneUseGlobalFileLocks``. SMB: without ``nobrl``.
    - No flock at all (some object stores): filelock warns and uses files with the holder's machine and process number, which
      are taken over when that process has died on the same machine only.

    Where machines do not see each other's locks, give each of them its own images: two could map one image at the same time. A
    child process that is forked while a claim is held keeps it until it ends too.

    A reservation is a lock of the same kind on ``rows/<name>.next``, of the image that a process opens while it computes
    another. It keeps no one from claiming the image.

    Args:
        output_dir: folder of the results; it is made.

    Raises:
        ValueError: if its table is that of something else.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.table = Path(output_dir) / TABLE_NAME
        self.folder = self.table.parent / ROWS_NAME
        check_table(self.table, COLUMNS)
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._waiting: dict[str, Row] = {}
        self._next_update = 0.0
        self._tabulating = threading.RLock()

    def read(self, name: str) -> Row | None:
        """The row of an image; None where there is none, or no whole one."""
        try:
            row: Row = orjson.loads((self.folder / f"{name}.json").read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return None
        return row if isinstance(row, dict) else None

    def is_damaged(self, name: str) -> bool:
        """Whether the image has a row of which not all is there."""
        return self.read(name) is None and (self.folder / f"{name}.json").exists()

    def write(self, row: Row) -> None:
        """Replace the row of ``row["slide"]``; only for the process that has claimed it."""
        with atomic_path(self.folder / f"{row['slide']}.json") as temporary:
            temporary.write_bytes(orjson.dumps(row, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Whether the image is this process's own while the block runs, in whatever thread it ends: False if another one is at
        work on it."""
        lock = _taken(self.folder / f"{name}.lock")
        try:
            yield lock is not None
        finally:
            if lock is not None:
                lock.release()

    def is_claimed(self, name: str) -> bool:
        """Whether a process is at work on the image."""
        with self.claim(name) as is_mine:
            return not is_mine

    def reserve(self, name: str) -> BaseFileLock | None:
        """Reserve the image to come next here: others leave it until nothing else is left. The lock to release, or None."""
        return _taken(self.folder / f"{name}{RESERVATION_SUFFIX}")

    def is_reserved(self, name: str) -> bool:
        """Whether the image comes next in a process."""
        if not (self.folder / f"{name}{RESERVATION_SUFFIX}").exists():
            return False
        lock = self.reserve(name)
        if lock is not None:
            lock.release()
        return lock is None

    def tabulate(self, row: Row) -> None:
        """Put a written row into ``slides.csv``: now, or with the next one if many arrive."""
        with self._tabulating:
            self._waiting[row["slide"]] = row
            if time.monotonic() >= self._next_update:
                self.flush()

    def flush(self) -> None:
        """Write the rows that `tabulate` has kept waiting."""
        with self._tabulating:
            if self._waiting:
                self._update(list(self._waiting.values()))
                self._waiting.clear()

    def rebuild_table(self) -> None:
        """Bring ``slides.csv`` up to date with all rows, also those of processes that were killed before they could."""
        rows = [self.read(path.name.removesuffix(".json")) for path in sorted(self.folder.glob("*.json"))]
        self._update([row for row in rows if row is not None and "slide" in row])

    def _update(self, rows: Sequence[Row]) -> None:
        started = time.monotonic()
        if rows:
            with FileLock(self.folder / TABLE_LOCK_NAME):
                write_rows(self.table, rows)
        self._next_update = time.monotonic() + (time.monotonic() - started) / TABLE_SHARE


def _taken(path: Path) -> BaseFileLock | None:
    """The lock of this path, None if it is taken."""
    lock = FileLock(path, thread_local=False)  # another thread may release it
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock
