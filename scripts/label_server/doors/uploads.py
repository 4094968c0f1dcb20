"""Uploaded files, each in a folder of its own for as long as it is needed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..refusal import Refusal

# That stay free for labels and maps.
_SPARED_BYTES = 2**28


class Uploads:
    """A folder for uploaded files, empty between two requests.

    What a server that was killed has left there is removed when the next one starts.

    Args:
        folder: of this server alone.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def kept(self, file: IO[bytes], suffix: str) -> Iterator[Path]:
        """The content of an upload as a file, which is removed at the end whatever happens.

        Args:
            file: to be read from its start.
            suffix: of the file's name, one that is known.

        Raises:
            Refusal: if there is no space for it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            size = file.seek(0, 2)
            file.seek(0)
            if shutil.disk_usage(folder).free < size + _SPARED_BYTES:
                raise Refusal(f"there is no space for an upload of {size:,} bytes", 507)
            path = folder / f"upload{suffix}"
            with path.open("wb") as target:
                shutil.copyfileobj(file, target)
            yield path
        finally:
            shutil.rmtree(folder, ignore_errors=True)
