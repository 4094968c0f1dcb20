"""MONAI Label's datastore of a folder, which several servers may change."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore, LocalDatastoreModel

from shared.writers.atomic import atomic_path

logger = logging.getLogger(__name__)


class LockedDatastore(LocalDatastore):
    """A `LocalDatastore` whose ``datastore_v2.json`` is read, changed and replaced in one step.

    MONAI Label writes what a server knows over what another server, of the same folder, has written meanwhile. The file is parsed
    only where another has written it.

    Args:
        folder: folder of the images.
        extensions: patterns of the names of images and labels.
    """

    _datastore: LocalDatastoreModel

    def __init__(self, folder: str, extensions: Sequence[str]) -> None:
        self._lock = FileLock(Path(folder, ".lock"))
        # Of the file as it was read or written last.
        self._version: tuple[int, int, int] | None = None
        self._text: str | None = None
        # Only for whoever holds the lock.
        self._is_changing = False
        super().__init__(folder, extensions=extensions)

    @contextmanager
    def _changing(self, only: str | None = None) -> Iterator[dict[str, ImageLabelModel]]:
        """The slides as they stand in the file, to be changed; they are written when the block ends without an error.

        No other server changes them meanwhile, as far as the file system's locks reach. A block within another is part of it.

        Args:
            only: id of the one slide that is changed; None for any of them. The others need not be copied.
        """
        with self._lock:
            if self._is_changing:
                yield self._datastore.objects
                return
            before, self._is_changing = self._datastore, True
            try:
                self._datastore = self._copied(only) if self._is_up_to_date() else self._stored()
                yield self._datastore.objects
                self._write()
            except BaseException:
                # Read again at the next occasion.
                self._datastore, self._version = before, None
                raise
            finally:
                self._is_changing = False

    def _is_up_to_date(self) -> bool:
        """Whether what is known is what ``datastore_v2.json`` holds, or there is no such file."""
        path = Path(self._datastore_config_path)
        return not path.is_file() or self._version == _version_of(path)

    def _copied(self, only: str | None) -> LocalDatastoreModel:
        """What is known, in which one slide, or each, can be changed without a change to what is known."""
        slides = self._datastore.objects
        changed = slides if only is None else {only} & set(slides)
        return self._datastore.model_copy(update={"objects": {**slides, **{name: _copy(slides[name]) for name in changed}}})

    def _stored(self) -> LocalDatastoreModel:
        """What ``datastore_v2.json`` holds."""
        path = Path(self._datastore_config_path)
        # Before it is read: whatever is written meanwhile has another version.
        version = _version_of(path)
        try:
            text = path.read_text(encoding="utf-8")
            found = LocalDatastoreModel.model_validate_json(text)
        except ValueError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{path} is damaged ({reason}), and nothing was changed: repair it, or move it away to begin without its labels"
            ) from error
        found.base_path = self._datastore_path
        self._version, self._text = version, text
        return found

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        with self._lock:
            # Within a change the file was read at its beginning.
            if self._is_changing or self._is_up_to_date():
                return
            try:
                self._datastore = self._stored()
            except ValueError as error:
                if throw_exception:
                    raise
                logger.error("%s", error)

    def _update_datastore_file(self, lock: bool = True) -> None:
        with self._lock:
            # A change is written at its end.
            if not self._is_changing:
                self._write()

    def _write(self) -> None:
        """Write what is known, unless the file holds it already."""
        path = Path(self._datastore_config_path)
        text = json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)
        if text == self._text and path.is_file() and self._is_up_to_date():
            return
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        self._version, self._text = _version_of(path), text


def _copy(entry: ImageLabelModel) -> ImageLabelModel:
    labels = {tag: DataModel(info={**label.info}, ext=label.ext) for tag, label in entry.labels.items()}
    return ImageLabelModel(image=DataModel(info={**entry.image.info}, ext=entry.image.ext), labels=labels)


def _version_of(path: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced, twice within the clock's tick too."""
    status = path.stat()
    return status.st_mtime_ns, status.st_ino, status.st_size
