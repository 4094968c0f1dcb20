"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .storage import storage_error, storage_errors

PART_SUFFIX = ".part"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield the temporary name ``<path>.part`` to write to; rename it to `path` when the block ends without an error.

    The name is always the same, so that what a killed run has left is overwritten by the next one and does not pile up;
    two processes must therefore not write one `path` at the same time, see `contended_path`. Formats that are chosen by a
    file's ending have to be named to their writer. Missing parent folders are made; an existing `path` stays as it was until
    the rename.

    Raises:
        StorageError: if the disk is full, the folder is read-only or the like: one line with the remedy.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_path(Path(folder, "labels.csv")) as temporary:
    ...         _ = temporary.write_text("image,label")
    ...     sorted(file.name for file in Path(folder).iterdir())
    ['labels.csv']
    """
    final = Path(path)
    with storage_errors(final.parent):
        final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(final.name + PART_SUFFIX)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            # Without it a power cut can leave the new name on an empty file.
            os.fsync(file.fileno())
        temporary.replace(final)
    except BaseException as error:
        # Before the file goes, which would make room again.
        found = storage_error(error, temporary, final)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if found is None or found is error:
            raise
        raise found from error


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Like `atomic_path`, for a folder: yield the temporary name of a new one; it replaces `path` when the block ends.

    An existing `path` goes just before, so that a kill between the two leaves none.
    """
    final = Path(path)
    temporary = final.with_name(final.name + PART_SUFFIX)
    with storage_errors(final.parent):
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
    try:
        with storage_errors(final):
            yield temporary
            if final.exists():
                shutil.rmtree(final)
            temporary.replace(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def contended_path(path: str | Path) -> Iterator[Path]:
    """`atomic_path` for a file that several processes may write at the same time: each write is whole, and the last one stays.

    Each has its own temporary name, so what killed runs leave is not overwritten by the next: for small files.
    """
    final = Path(path)
    own = final.with_name(f"{final.name}.{uuid.uuid4().hex[:12]}")
    with atomic_path(own) as temporary:
        yield temporary
    own.replace(final)
