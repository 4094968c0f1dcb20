"""Watches the studies folder for slides and labels that come and go."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.polling import PollingObserver

from shared.wsi.annotations.annotation_file import is_annotation_file
from shared.wsi.formats import is_image

logger = logging.getLogger(__name__)

# Quiet time before the folder is searched again, as copying a folder causes an event for every file.
QUIET_S = 0.5
_OF_FOLDERS = frozenset({"created", "deleted", "moved"})
# A file is complete when the one that copies it has closed it.
_OF_FILES = _OF_FOLDERS | {"closed"}
_CONFIG = "datastore_v2.json"


class _Watch(FileSystemEventHandler):
    def __init__(self, refresh: Callable[[], None], reload: Callable[[], None], is_polled: bool) -> None:
        self._refresh, self._reload = refresh, reload
        # Polling sees no file being closed, but one event each second while it grows.
        self._of_files = _OF_FILES | {"modified"} if is_polled else _OF_FILES
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type not in _OF_FILES | {"modified"}:
            return
        paths = [Path(str(path)) for path in (event.src_path, event.dest_path) if path]
        if any(path.name == _CONFIG for path in paths):
            self._reload()
        elif self._matters(event, paths):
            self._soon()

    def _matters(self, event: FileSystemEvent, paths: list[Path]) -> bool:
        if event.is_directory:
            return event.event_type in _OF_FOLDERS
        return event.event_type in self._of_files and any(map(_counts, paths))

    def _soon(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(QUIET_S, self._refreshed)
            self._timer.daemon = True
            self._timer.start()

    def _refreshed(self) -> None:
        try:
            self._refresh()
        except (OSError, ValueError) as error:
            logger.warning("the studies folder cannot be searched again: %s", error)


def watch_studies(folder: Path, refresh: Callable[[], None], reload: Callable[[], None]) -> None:
    """Call `refresh` when slides or labels were added or removed, and `reload` when the datastore's file was written.

    If the folder cannot be watched, this is logged, and changes are noticed at the next start.
    """
    is_mounted = any(path.is_mount() for path in (folder, *folder.parents) if path != path.parent)
    observer = PollingObserver() if is_mounted else Observer()
    try:
        observer.schedule(_Watch(refresh, reload, is_mounted), str(folder), recursive=True)
        observer.start()
    except OSError as error:
        logger.error("%s cannot be watched (%s): new slides are found only when the server is restarted", folder, error)


def _counts(path: Path) -> bool:
    return not path.name.startswith(".") and (is_image(path) or is_annotation_file(path))
