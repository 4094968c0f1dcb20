"""Slides that have been checked and found sound, so that a training that is started again does not open them all once more."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..writers.atomic import contended_path
from ..writers.storage import StorageError
from ..wsi.slide_files import SlideStates
from .record import Record

logger = logging.getLogger(__name__)

FILE = "checked.json"


class PassedSlides:
    """The slides that passed a check, in ``checked.json`` of a folder, until anything that was checked changes.

    That is the slide's files (see `SlideStates`), its mask and the mask of its tissue by size and time, its row, and the settings
    of the check.

    Args:
        folder: of the file; None to remember nothing.
        settings: of the check.
        features: the file of a slide's features, which is checked too; None for none.
    """

    def __init__(self, folder: Path | None, settings: Sequence[Any], features: Callable[[Record], Path] | None = None) -> None:
        self.file, self._settings = None if folder is None else folder / FILE, list(settings)
        self._features, self._slides = features, SlideStates()
        self._entries: dict[str, Any] = {}
        try:
            if self.file is not None and self.file.is_file():
                self._entries = dict(json.loads(self.file.read_text(encoding="utf-8")))
        except ValueError:
            self._entries = {}

    def content_of(self, record: Record) -> str | None:
        """The key of a slide's content that was noted when it passed; None where it has to be checked."""
        entry = self._entries.get(self._key(record))
        if entry is None or entry["state"] != self._state(record, entry["tissue"]):
            return None
        return str(entry["content"])

    def entry(self, record: Record, content: str, tissue: Path) -> dict[str, Any]:
        """The entry of a slide that has passed: its content, and the file of its tissue."""
        return {"key": self._key(record), "content": content, "tissue": str(tissue), "state": self._state(record, str(tissue))}

    def write(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Note what `entry` gave. Of several processes the last one's file stays: the others' slides are checked again.

        So they are where the folder cannot be written to, as that of somebody else's data set, whose tissue may be there.
        """
        new = {entry["key"]: {name: value for name, value in entry.items() if name != "key"} for entry in entries}
        if new and self.file is not None:
            self._entries |= new
            try:
                with contended_path(self.file) as temporary:
                    temporary.write_text(json.dumps(self._entries), encoding="utf-8")
            except StorageError as error:
                logger.warning("the next run checks the slides again: %s", error)

    def _key(self, record: Record) -> str:
        row = {name: value for name, value in record.items() if name not in ("row", "manifest", "split")}
        return hashlib.sha256(json.dumps([row, self._settings], sort_keys=True, default=str).encode()).hexdigest()[:24]

    def _state(self, record: Record, tissue: str) -> list[str | list[int] | None]:
        features = [] if self._features is None else [self._features(record)]
        try:
            slide = self._slides.of(record["image"])
        except OSError:
            slide = None
        return [slide, *(_size_and_time(path) for path in (record.get("mask"), tissue, *features))]


def _size_and_time(path: Any) -> list[int] | None:
    try:
        stat = Path(path).stat() if path else None
    except OSError:
        return None
    return None if stat is None else [stat.st_size, stat.st_mtime_ns]
