"""Uploaded files, each in its own folder for as long as it is needed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..refusal import Refusal

# Disk space that stays free for labels and maps.
_SPARED_BYTES = 2**28


class Uploads:
    """A folder for uploaded files, which is empty between requests.

    Files that a killed server left there are removed when the next one starts.

    Args:
        folder: folder that no other server uses.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def kept(self, file: IO[bytes], suffix: str) -> Iterator[Path]:
        """Store an upload as a file, which is removed when the context ends, whatever happens.

        Args:
            file: the upload, which is read from its start.
            suffix: suffix of the file's name.

        Raises:
            Refusal: if there is not enough disk space.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            size = file.seek(0, 2)
            file.seek(0)
            if shutil.disk_usage(folder).free < size + _SPARED_BYTES:
                raise Refusal(f"there is not enough disk space for an upload of {size:,} bytes", 507)
            path = folder / f"upload{suffix}"
            with path.open("wb") as target:
                shutil.copyfileobj(file, target)
            yield path
        finally:
            shutil.rmtree(folder, ignore_errors=True)
