"""HDF5 files that appear whole or not at all, also where there is no room for them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from .atomic import atomic_path


class _Sink(io.FileIO):
    """A file that keeps the first error of writing, and accepts no more data after it.

    HDF5 itself cannot close a file that it could not write, and takes the whole process with it at its end.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "wb+")
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        left = memoryview(content).cast("B")
        size = len(left)
        try:
            # Without a buffer a write may take a part only, as on a disk that is filling up.
            while left and self.error is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            if self.error is None:
                return super().truncate(size)
        except OSError as error:
            self.error = error
        return size or 0


class WholeFile:
    """A new HDF5 file under its temporary name.

    Args:
        file: open for writing.
        sink: what it is written to.
    """

    def __init__(self, file: h5py.File, sink: _Sink) -> None:
        self.file, self._sink = file, sink

    def check(self) -> None:
        """Check that all has been written so far: HDF5 does not notice what failed.

        Raises:
            OSError: that of the system.
        """
        if self._sink.error is not None:
            raise self._sink.error


@contextmanager
def whole_file(path: str | Path) -> Iterator[WholeFile]:
    """Write an HDF5 file that gets its name when the block ends without an error, see `atomic_path`.

    Raises:
        StorageError: if the disk is full, the folder is read-only or the like: one line with the remedy.
    """
    with atomic_path(path) as temporary, _Sink(temporary) as sink:
        with h5py.File(sink, "w") as file:
            written = WholeFile(file, sink)
            yield written
        written.check()
