"""Features of images in files, each computed once: found again, by any run, by what they were made of."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from ..writers.atomic import PART_SUFFIX
from ..writers.hdf5 import whole_file

logger = logging.getLogger(__name__)

_FEATURES, _KEYS = "features", "keys"
# Writing a file takes seconds: one that has not grown for a day is not being written any more.
_LEFT_S = 24 * 3600


def feature_key(*parts: Any) -> str:
    """32 hex digits for what a feature was made of, from anything that JSON can write."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class ImageFeatureStore:
    """Features ``(C, h, w)`` of images in HDF5 files, float16, by key.

    A file holds what one process computed at one go: ``features (n, C, h, w)`` and ``keys (n,)``. It is written under another
    name and renamed, so that a process that is killed loses that file alone, and several may write into the folder at once.
    Who writes first removes what killed processes left half-written more than a day ago.

    Args:
        folder: of the files, made when something is written. One folder for each encoder's key.
        memory_bytes: features that have been read are held up to this size.
    """

    def __init__(self, folder: str | Path, memory_bytes: int = 4 * 2**30) -> None:
        self.folder, self.memory_bytes = Path(folder), memory_bytes
        self._places: dict[str, tuple[Path, int]] = {}
        self._known_files: set[Path] = set()
        self._held: dict[str, Tensor] = {}
        self._held_bytes = 0
        self._has_tidied = False

    def missing(self, keys: Sequence[str]) -> list[str]:
        """The keys among some that no file has."""
        self._find_new_files()
        return [key for key in keys if key not in self._places and key not in self._held]

    def write(self, keys: Sequence[str], features: Sequence[Tensor], description: dict[str, Any]) -> None:
        """Keep features of one shape; `description` becomes the file's attributes."""
        self._remove_left_files()
        values = torch.stack(list(features)).half().cpu().numpy()
        path = self.folder / f"{uuid.uuid4().hex}.h5"
        with whole_file(path) as whole:
            file = whole.file
            file.create_dataset(_FEATURES, data=values, chunks=(1, *values.shape[1:]), compression="lzf", shuffle=True)
            file.create_dataset(_KEYS, data=np.array(keys, dtype="S32"))
            file.attrs.update({name: value for name, value in description.items() if value is not None})

    def read(self, key: str) -> Tensor:
        """The features of one image, float16 ``(C, h, w)``; not to be changed.

        Raises:
            ValueError: if they are not there, or their file is damaged.
        """
        held = self._held.get(key)
        if held is not None:
            return held
        if key not in self._places:
            self._find_new_files()
        if key not in self._places:
            raise ValueError(
                f"{self.folder} no longer contains the features of an image that were there when the run began. Run again, and "
                "the image is embedded again"
            )
        path, row = self._places[key]
        with _opened(path) as file:
            features = torch.from_numpy(file[_FEATURES][row])
        self.hold(key, features)
        return features

    def hold(self, key: str, features: Tensor) -> bool:
        """Have `read` answer from memory, for this object alone; False where that is full."""
        size = features.numel() * features.element_size()
        if self._held_bytes + size > self.memory_bytes:
            return False
        self._held[key] = features
        self._held_bytes += size
        return True

    def _remove_left_files(self) -> None:
        """Remove half-written files of processes that were killed: each has a name of its own, which nobody writes again."""
        if self._has_tidied:
            return
        self._has_tidied = True
        for path in self.folder.glob(f"*.h5{PART_SUFFIX}"):
            # Another process may be writing one now, or remove it too.
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _LEFT_S:
                    path.unlink()

    def _find_new_files(self) -> None:
        """Register files that were written since."""
        for path in sorted(self.folder.glob("*.h5")) if self.folder.is_dir() else []:
            if path not in self._known_files:
                with _opened(path) as file:
                    self._places |= {key.decode(): (path, row) for row, key in enumerate(file[_KEYS][:])}
                self._known_files.add(path)


class _opened:
    """An HDF5 file of features; damage to it is reported by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: h5py.File | None = None

    def __enter__(self) -> h5py.File:
        try:
            # Readers need no lock, and file systems of networks do not always give one.
            self.file = h5py.File(self.path, "r", locking=False)
        except OSError as error:
            raise ValueError(f"{self.path} is damaged ({error}): delete it, and its images are embedded again") from error
        return self.file

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if self.file is not None:
            self.file.close()
        if isinstance(error, OSError | KeyError):
            raise ValueError(f"{self.path} is damaged ({error}): delete it, and its images are embedded again") from error


def in_shapes(features: Sequence[Tensor]) -> Iterator[list[int]]:
    """Positions of features of the same shape, group by group."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for position, values in enumerate(features):
        groups.setdefault(tuple(values.shape), []).append(position)
    yield from groups.values()
