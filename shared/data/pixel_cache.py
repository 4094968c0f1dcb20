"""Pixels as they were read from files that are decoded whole, kept on disk: later epochs and runs read these alone."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..writers.atomic import contended_path
from ..writers.storage import StorageError

logger = logging.getLogger(__name__)

# Raise it when the same files and settings give other pixels: those in the folder are then read again.
PIXELS_VERSION = 2
# A file of fewer pixels is decoded nearly as fast as another one is read.
LEAST_DECODED_PX = 512 * 512
_SUFFIX = ".npy"
# A whole file, one that is being renamed, and one that is being written. Files with other names do not belong to the cache.
_OWN = re.compile(r"[0-9a-f]{32}\.npy(\.[0-9a-f]{12}(\.part)?)?")
# The disk is left so much for what a training writes.
LEAST_FREE_BYTES = 2 * 10**9
# As many as a file system of some 100 GB has room for in addition to others.
MOST_FILES = 200_000
_RECOUNTS = 64
_ABANDONED_S = 24 * 3600
_UNREAD_S = 7 * 24 * 3600


class _Held(NamedTuple):
    """The part of the cache that a folder holds."""

    num_bytes: int = 0
    num_files: int = 0


class PixelCache:
    """Images and masks in separate files, uint8, not compressed: what is read often stays in the system's memory.

    A file's name is a hash of which files its pixels are from, with their sizes and times of change, and of how they were read:
    an image that is changed is read again. Files appear whole, so that several processes and runs may use a folder at the same
    time. One that is damaged is written again.

    A full folder pushes out nothing but what has not been read for a week, such as the pixels of images that have changed:
    where an epoch is larger than the folder may become, anything else would be pushed out just before it is read again. The
    rest is read as without a cache. Files of other names in the folder are neither counted nor touched. A disk on which less
    than 2 GB would stay free counts as a full folder.

    Args:
        folder: of the files, made when the first is written; it may be deleted at any time.
        max_gb: what it may hold, in 10^9 bytes; 0 keeps nothing, and reads nothing that is there.
        max_files: how many files it may hold: file systems and quotas have a limit of them too.

    Raises:
        ValueError: for negative numbers.
    """

    def __init__(self, folder: str | Path, max_gb: float = 20.0, max_files: int = MOST_FILES) -> None:
        if not (max_gb >= 0 and max_files >= 0):
            raise ValueError(f"a pixel cache needs max_gb >= 0 and max_files >= 0; got max_gb={max_gb}, max_files={max_files}")
        self.folder, self.max_bytes, self.max_files = Path(folder), round(max_gb * 1e9), max_files
        # What the folder held when this process counted last, and what it has written since.
        self._counted: _Held | None = None
        self._written = _Held()
        self._is_closed = self.max_bytes == 0

    def get(
        self, files: Sequence[str | Path], settings: Sequence[Any], read: Callable[[], NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        """The result of `read`: from the folder, or else read now and kept.

        Args:
            files: that it reads.
            settings: how it reads them; numbers, texts and lists of them.
            read: gives pixels of any shape, uint8. What it raises, this raises.
        """
        if self.max_bytes == 0:
            return read()
        path = self.folder / f"{_key(files, settings)}{_SUFFIX}"
        known = _load(path)
        if known is not None:
            return known
        pixels = read()
        if not self._is_closed:
            self._keep(pixels, path)
        return pixels

    def kept(self, files: Sequence[str | Path], settings: Sequence[Any]) -> NDArray[np.uint8] | None:
        """What `get` of the same would find in the folder, read where it is used; None where there is nothing."""
        return _load(self.folder / f"{_key(files, settings)}{_SUFFIX}", mmap_mode="r") if self.max_bytes else None

    def _keep(self, pixels: NDArray[np.uint8], path: Path) -> None:
        if not self._has_room(pixels.nbytes):
            self._close(
                f"it is full with {self.max_bytes / 1e9:g} GB (pixels_gb)"
                if self._counted is None or self._counted.num_files < self.max_files
                else f"it holds {self._counted.num_files} files, of {self.max_files} at most (pixels_files)"
            )
            return
        try:
            if _free_bytes(self.folder) - pixels.nbytes < LEAST_FREE_BYTES:
                self._close(f"less than {LEAST_FREE_BYTES / 1e9:g} GB are free on its disk")
                return
            with contended_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, pixels)
        except StorageError as error:
            # A training needs no cache.
            self._close(str(error))
        else:
            self._written = _Held(self._written.num_bytes + pixels.nbytes, self._written.num_files + 1)

    def _has_room(self, num_bytes: int) -> bool:
        most_uncounted = _Held(self.max_bytes // _RECOUNTS, self.max_files // _RECOUNTS)
        if self._counted is None or any(written > most for written, most in zip(self._written, most_uncounted, strict=True)):
            self._counted, self._written = _held_by(self.folder), _Held()
        if not self._fits(self._counted, num_bytes):
            self._counted, self._written = _held_by(self.folder, unread_s=_UNREAD_S), _Held()
        return self._fits(self._counted, num_bytes)

    def _fits(self, counted: _Held, num_bytes: int) -> bool:
        total = counted.num_bytes + self._written.num_bytes + num_bytes
        return total <= self.max_bytes and counted.num_files + self._written.num_files < self.max_files

    def _close(self, reason: str) -> None:
        self._is_closed = True
        logger.warning(
            "no more pixels are cached in %s: %s. Images that are not in the cache are decoded again in every epoch",
            self.folder,
            reason,
        )


def _key(files: Sequence[str | Path], settings: Sequence[Any]) -> str:
    parts = [PIXELS_VERSION, [_state(Path(file)) for file in files], list(settings)]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]


def _state(file: Path) -> tuple[str, int, int]:
    try:
        status = file.stat()
    except OSError:  # reported where it is read
        return str(file.absolute()), 0, 0
    return str(file.absolute()), status.st_size, status.st_mtime_ns


def _load(path: Path, mmap_mode: Literal["r"] | None = None) -> NDArray[np.uint8] | None:
    try:
        pixels: NDArray[np.uint8] = np.load(path, mmap_mode)
    except (OSError, ValueError, EOFError):
        # There is none, or it is damaged: it is written again.
        return None
    return pixels if pixels.dtype == np.uint8 else None


def _free_bytes(folder: Path) -> int:
    """Free bytes on the disk of the folder, even if it does not exist yet."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def _held_by(folder: Path, unread_s: float = math.inf) -> _Held:
    """The cache's files in a folder; files left by killed processes and files unread for a long time are removed."""
    total, now = _Held(), time.time()
    for file in folder.iterdir() if folder.is_dir() else []:
        if not _OWN.fullmatch(file.name):
            continue
        try:
            status = file.stat()
            # Systems note the time of reading once a day at the least, or not at all: then it is that of writing.
            read_s = max(status.st_atime, status.st_mtime)
            if now - read_s > (unread_s if file.suffix == _SUFFIX else _ABANDONED_S):
                file.unlink()
                continue
        except OSError:  # another process was quicker
            continue
        total = _Held(total.num_bytes + status.st_size, total.num_files + 1)
    return total
