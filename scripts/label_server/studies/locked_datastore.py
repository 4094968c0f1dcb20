"""MONAI Label's datastore of a folder, which several servers may change."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from monailabel.datastore.local import ImageLabelModel, LocalDatastore, LocalDatastoreModel

from shared.writers.atomic import atomic_path

logger = logging.getLogger(__name__)


class LockedDatastore(LocalDatastore):
    """A `LocalDatastore` whose ``datastore_v2.json`` is read, changed and replaced in one step.

    MONAI Label writes what a server knows over what another server, of the same folder, has written meanwhile.

    Args:
        folder: folder of the images.
        extensions: patterns of the names of images and labels.
    """

    _datastore: LocalDatastoreModel

    def __init__(self, folder: str, extensions: Sequence[str]) -> None:
        self._lock = FileLock(Path(folder, ".lock"))
        self._version: tuple[int, int, int] | None = None
        super().__init__(folder, extensions=extensions)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, ImageLabelModel]]:
        """The slides as they stand in the file, to be changed; they are written when the block ends without an error.

        No other server changes them meanwhile, as far as the file system's locks reach. A block within another is part of it.
        """
        with self._lock:
            if self._lock.lock_counter > 1:
                yield self._datastore.objects
                return
            before = self._datastore
            self._datastore = self._stored()
            try:
                yield self._datastore.objects
                self._update_datastore_file()
            except BaseException:
                # Read again at the next occasion.
                self._datastore, self._version = before, None
                raise

    def _stored(self) -> LocalDatastoreModel:
        """What ``datastore_v2.json`` holds; a copy of what is known if there is no such file."""
        path = Path(self._datastore_config_path)
        if not path.is_file():
            return self._datastore.model_copy(deep=True)
        try:
            found = LocalDatastoreModel.model_validate_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{path} is damaged ({reason}), and nothing was changed: repair it, or move it away to begin without its labels"
            ) from error
        found.base_path = self._datastore_path
        return found

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        with self._lock:
            path = Path(self._datastore_config_path)
            # Within a change the file was read at its beginning.
            if self._lock.lock_counter > 1 or not path.is_file() or self._version == _version_of(path):
                return
            try:
                self._datastore = self._stored()
            except ValueError as error:
                if throw_exception:
                    raise
                logger.error("%s", error)
                return
            self._version = _version_of(path)

    def _update_datastore_file(self, lock: bool = True) -> None:
        with self._lock:
            path = Path(self._datastore_config_path)
            text = json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                with atomic_path(path) as temporary:
                    temporary.write_text(text, encoding="utf-8")
            self._version = _version_of(path)


def _version_of(path: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced, twice within the clock's tick too."""
    status = path.stat()
    return status.st_mtime_ns, status.st_ino, status.st_size
