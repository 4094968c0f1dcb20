"""The areas drawn on slides. Each file is read only once, in a separate process with limits of time and memory."""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
from collections import OrderedDict
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
_NOT_ANNOTATIONS = 3


class DrawnFiles:
    """The `drawn_areas` of annotation files, stored in memory and in a folder.

    Args:
        folder: folder for the results, created when needed.
        longest_s: seconds after which the reading of a file is given up.
    """

    def __init__(self, folder: str | Path, longest_s: float = LONGEST_READING_S) -> None:
        self.folder, self.longest_s = Path(folder), longest_s
        self._known: OrderedDict[str, DrawnAreas | Refusal] = OrderedDict()
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
            Refusal: if the file cannot be read, or exceeds the limits of time and memory.
        """
        status = path.stat()
        content = _content_of(str(path), status.st_size, status.st_mtime_ns)
        facts = [content, path.name.partition(".")[2].lower(), frame, *qupath_origin_px, _VERSION]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
        found = self._remembered(key)
        if found is None:
            with self._reading:
                # Another thread may have read it meanwhile.
                found = self._remembered(key) or self._kept(key) or self._read(key, path, frame, qupath_origin_px)
                self._remember(key, found)
        if isinstance(found, Refusal):
            raise Refusal(str(found), found.status)
        return found

    def _remembered(self, key: str) -> DrawnAreas | Refusal | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def _remember(self, key: str, found: DrawnAreas | Refusal) -> None:
        with self._lock:
            self._known[key] = found
            while len(self._known) > _MOST_IN_MEMORY:
                self._known.popitem(last=False)

    def _kept(self, key: str) -> DrawnAreas | None:
        try:
            return _from_text((self.folder / f"{key}.json").read_text())
        except (OSError, ValueError, shapely.errors.ShapelyError):
            return None

    def _read(self, key: str, path: Path, frame: str, origin: tuple[int, int]) -> DrawnAreas | Refusal:
        """Read a file in another process. A failure is remembered like a result."""
        with tempfile.TemporaryDirectory(prefix="drawn-") as folder, tempfile.TemporaryFile("w+") as log:
            found = Path(folder) / "areas.json"
            command = [sys.executable, "-m", __name__, str(path), frame, *map(str, origin), str(found)]
            code, is_late = self._run(command, log)
            if code == 0:
                text = found.read_text()
                with atomic_path(self.folder / f"{key}.json") as kept:
                    kept.write_text(text)
                return _from_text(text)
            log.seek(0)
            said = log.read().strip().splitlines()
        if code == _NOT_ANNOTATIONS and said:
            return Refusal(said[-1], 400)
        if is_late:
            return Refusal(
                f"the annotations {path.name} take longer than {self.longest_s:g} s to read: draw fewer outlines that cross "
                "themselves or each other"
            )
        return Refusal(
            f"the annotations {path.name} cannot be read in {_MOST_MEMORY_BYTES / 2**30:g} GiB of memory (status {code}): leave "
            "out annotations that are not needed, such as cells"
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
    """Read one file and write its areas; if it cannot be read, print the reason as the last line and return 3."""
    if sys.platform == "linux":
        # Other systems do not have this module.
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
    try:
        areas = drawn_areas(Path(path), frame, (int(x), int(y)))
    except ValueError as error:
        print(" ".join(str(error).splitlines()))
        return _NOT_ANNOTATIONS
    Path(found).write_text(_as_text(areas))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
