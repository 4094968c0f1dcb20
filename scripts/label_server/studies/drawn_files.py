"""The areas drawn on slides. Each file is read only once, in a separate process with limits of time and memory."""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import shapely

from shared.sweeps.child_process import run_child
from shared.writers.atomic import atomic_path

from ..learning.weak_labels import DrawnAreas, drawn_areas
from ..refusal import Refusal

# The annotations of a large slide take a few seconds; outlines with many thousands of crossings would take hours.
LONGEST_READING_S = 60.0
_MOST_MEMORY_BYTES = 8 * 2**30
_MOST_IN_MEMORY = 256
# Increase it when the result of `drawn_areas` changes, so that stored results are computed again.
_VERSION = 2
_NOT_ANNOTATIONS, _UNREADABLE = 3, 4
# Times the limit of time, for which a file that exceeded it is not read again: it takes a tenth of a core at most.
_PAUSE = 10


@dataclass(frozen=True)
class _Outcome:
    """What the reading of a file gave.

    Args:
        found: its areas, or why it cannot be read.
        until: on the clock `time.monotonic`, when it is to be read again; None for what lies in the file itself. Anything else
            may have been the fault of a busy machine or disk.
        longest_s: the limit of time under which it was read.
    """

    found: DrawnAreas | Refusal
    until: float | None = None
    longest_s: float = 0.0


class DrawnFiles:
    """The `drawn_areas` of annotation files, stored in memory and in a folder.

    Args:
        folder: folder for the results, created when needed.
        longest_s: seconds after which the reading of a file is given up.
    """

    def __init__(self, folder: str | Path, longest_s: float = LONGEST_READING_S) -> None:
        self.folder, self.longest_s = Path(folder), longest_s
        self._known: OrderedDict[str, _Outcome] = OrderedDict()
        self._lock = threading.Lock()
        # One file is read at a time, as each takes a core; known areas are available meanwhile.
        self._reading = threading.Lock()

    def areas(self, path: Path, frame: str, qupath_origin_px: tuple[int, int] = (0, 0)) -> DrawnAreas:
        """The areas of a file, see `drawn_areas`.

        Args:
            path: path of the file, which may be a copy of one that was read before.
            frame: coordinate frame if the file does not name it.
            qupath_origin_px: `Slide.qupath_origin_px` of the slide.

        Raises:
            Refusal: if the file cannot be read, or exceeds the limits of time and memory. Unless the file is to blame, it is read
                again some minutes later, or under a higher limit.
        """
        status = path.stat()
        content = _content_of(str(path), status.st_size, status.st_mtime_ns)
        facts = [content, path.name.partition(".")[2].lower(), frame, *qupath_origin_px, _VERSION]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
        outcome = self._remembered(key)
        if outcome is None:
            with self._reading:
                # Another thread may have read it meanwhile.
                outcome = self._remembered(key) or self._kept(key) or self._read(key, path, frame, qupath_origin_px)
                self._remember(key, outcome)
        if isinstance(outcome.found, Refusal):
            raise Refusal(str(outcome.found), outcome.found.status)
        return outcome.found

    def _remembered(self, key: str) -> _Outcome | None:
        with self._lock:
            outcome = self._known.get(key)
            if outcome is None:
                return None
            if outcome.until is not None and (time.monotonic() > outcome.until or self.longest_s > outcome.longest_s):
                return None
            self._known.move_to_end(key)
            return outcome

    def _remember(self, key: str, outcome: _Outcome) -> None:
        with self._lock:
            self._known[key] = outcome
            while len(self._known) > _MOST_IN_MEMORY:
                self._known.popitem(last=False)

    def _kept(self, key: str) -> _Outcome | None:
        try:
            return _Outcome(_from_text((self.folder / f"{key}.json").read_text()))
        except (OSError, ValueError, shapely.errors.ShapelyError):
            return None

    def _read(self, key: str, path: Path, frame: str, origin: tuple[int, int]) -> _Outcome:
        """Read a file in another process."""
        with tempfile.TemporaryDirectory(prefix="drawn-") as folder, tempfile.TemporaryFile("w+") as log:
            found = Path(folder) / "areas.json"
            command = [sys.executable, "-m", __name__, str(path), frame, *map(str, origin), str(found)]
            code, is_late = self._run(command, log)
            if code == 0:
                text = found.read_text()
                with atomic_path(self.folder / f"{key}.json") as kept:
                    kept.write_text(text)
                return _Outcome(_from_text(text))
            log.seek(0)
            said = log.read().strip().splitlines()
        if code == _NOT_ANNOTATIONS and said:
            return _Outcome(Refusal(said[-1], 400))
        return _Outcome(self._failure(path, code, is_late, said), time.monotonic() + _PAUSE * self.longest_s, self.longest_s)

    def _failure(self, path: Path, code: int, is_late: bool, said: list[str]) -> Refusal:
        if code == _UNREADABLE and said:
            return Refusal(said[-1])
        if is_late:
            return Refusal(
                f"the annotations {path.name} take longer than {self.longest_s:g} s to read: draw fewer outlines that cross "
                "themselves or each other, or try again later if the server is busy"
            )
        return Refusal(
            f"the annotations {path.name} cannot be read in {_MOST_MEMORY_BYTES / 2**30:g} GiB of memory (status {code}): leave "
            "out annotations that are not needed, such as cells, or try again later if the server is busy"
        )

    def _run(self, command: list[str], log: object) -> tuple[int, bool]:
        late = threading.Event()

        def give_up(process: subprocess.Popen[bytes]) -> None:
            late.set()
            process.kill()

        timers: list[threading.Timer] = []

        def started(process: subprocess.Popen[bytes]) -> None:
            timer = threading.Timer(self.longest_s, give_up, (process,))
            timer.daemon = True
            timer.start()
            timers.append(timer)

        try:
            code = run_child(command, log, started)  # type: ignore[arg-type]
        finally:
            for timer in timers:
                timer.cancel()
        return code, late.is_set()


@functools.lru_cache(maxsize=4096)
def _content_of(path: str, size: int, modified_ns: int) -> str:
    """SHA-256 of a file; `size` and `modified_ns` only make sure that a changed file is read again."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def _as_text(areas: DrawnAreas) -> str:
    return json.dumps([shapely.to_wkb(area, hex=True) for area in (areas.tumour, areas.normal)])


def _from_text(text: str) -> DrawnAreas:
    tumour, normal = (shapely.from_wkb(area) for area in json.loads(text))
    return DrawnAreas(tumour, normal)


def main(path: str, frame: str, x: str, y: str, found: str) -> int:
    """Read one file and write its areas.

    If it cannot be read, print the reason as the last line, and return 3 if the file is to blame, or 4 if the system is.
    """
    try:
        areas = drawn_areas(Path(path), frame, (int(x), int(y)))
    except ValueError as error:
        print(" ".join(str(error).splitlines()))
        # Damage may be an OSError too, but not one of the system's, which have a number.
        return _UNREADABLE if getattr(error.__cause__, "errno", None) is not None else _NOT_ANNOTATIONS
    Path(found).write_text(_as_text(areas))
    return 0


def _limit_memory() -> None:
    """Let the system end this process before a file takes the memory of all others."""
    if sys.platform == "linux":
        # Other systems do not have this module.
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))


if __name__ == "__main__":
    # Not in `main`: the limit is the whole process's.
    _limit_memory()
    sys.exit(main(*sys.argv[1:]))
