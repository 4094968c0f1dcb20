"""Probability maps of any size in a separate file, written tile by tile in any order and read by rows."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from ...writers.storage import storage_errors
from ..tiles.map_grid import MapGrid
from ..tiles.near_tissue import NearTissue


class ProbabilityMap:
    """uint8 ``(C, H, W)`` on disk, 0 where nothing was written, and on glass.

    The file holds one class after the other, and of each the tiles' cores one after the other, so that a tile is one
    write a class and a strip of a class is one read. It is not a memory map, because its pages would count as the
    process's memory. The file is sparse: tiles that are never written take no space. Several threads may read and write
    at once. Use as a context manager; leaving it removes the file.

    Attributes:
        shape: (H, W).
        num_classes: C; 1 for a map of tumour.
        max_values: the largest value written of each class, ``(C,)``.

    Args:
        path: where to keep it; an existing file is overwritten.
        grid: the image's tiles.
        num_classes: C.
        near_tissue: elsewhere the map is 0 whatever is written; None: nowhere.
    """

    def __init__(self, path: str | Path, grid: MapGrid, num_classes: int = 1, near_tissue: NearTissue | None = None) -> None:
        self.path = Path(path)
        self._near_tissue = near_tissue
        self.shape = grid.map_shape
        self.num_classes = num_classes
        self.max_values = np.zeros(num_classes, np.uint8)
        self._core_shape = (num_classes, *grid.core_shape)
        self._num_tiles = grid.num_tiles
        self._is_written = np.zeros(grid.num_tiles, bool)
        self._core_bytes = grid.core_shape[0] * grid.core_shape[1]
        self._class_bytes = self._core_bytes * self._num_tiles[0] * self._num_tiles[1]
        self._lock = threading.Lock()
        with storage_errors(self.path):
            self._file = self.path.open("wb+", buffering=0)
            try:
                self._file.truncate(self._class_bytes * num_classes)
            except OSError:
                self.__exit__(None, None, None)
                raise

    def __enter__(self) -> ProbabilityMap:
        return self

    def __exit__(self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def write_tile(self, tile: tuple[int, int], core: np.ndarray) -> None:
        """Store the core of `tile` (row, column): uint8 ``(C, *core_shape)`` of the grid; what lies outside is dropped."""
        if core.shape != self._core_shape or core.dtype != np.uint8:
            raise ValueError(f"a tile's core is uint8 {self._core_shape}, got {core.dtype} {core.shape}")
        height, width = core.shape[1:]
        if self._near_tissue is not None:
            core = self._near_tissue.keep(core, tile[0] * height, tile[1] * width)
        inside = core[:, : self.shape[0] - tile[0] * height, : self.shape[1] - tile[1] * width]
        np.maximum(self.max_values, inside.max(axis=(1, 2)), out=self.max_values)
        for index, of_class in enumerate(core):
            place = index * self._class_bytes + (tile[0] * self._num_tiles[1] + tile[1]) * self._core_bytes
            with self._lock:
                self._write(place, np.ascontiguousarray(of_class).data)
        self._is_written[tile] = True

    def _write(self, place: int, content: memoryview) -> None:
        with storage_errors(self.path):
            self._file.seek(place)
            # Without a buffer a write may take a part only, as on a disk that is filling up.
            left = content.cast("B")
            while left:
                left = left[self._file.write(left) :]

    def of_class(self, index: int) -> ClassProbability:
        """The map of one class, to be read by rows."""
        return ClassProbability(self, index)

    def read_rows(self, start: int, stop: int, index: int = 0) -> np.ndarray:
        """Map rows ``start`` to ``stop`` (exclusive) of one class, ``(stop - start, W)`` uint8."""
        core_height = self._core_shape[1]
        strips = []
        for row in range(start // core_height, -(-stop // core_height)):
            top = row * core_height
            strips.append(self._read_cores(row, index)[max(start - top, 0) : stop - top, : self.shape[1]])
        return np.concatenate(strips)

    def _read_cores(self, row: int, index: int) -> np.ndarray:
        """One row of tiles of one class, side by side; read from the first that was written to the last."""
        core_height, core_width = self._core_shape[1:]
        num_columns = self._num_tiles[1]
        cores = np.zeros((core_height, num_columns, core_width), np.uint8)
        written = np.flatnonzero(self._is_written[row])
        if written.size:
            first, count = int(written[0]), int(written[-1] - written[0]) + 1
            with self._lock:
                self._file.seek(index * self._class_bytes + (row * num_columns + first) * self._core_bytes)
                stored = np.frombuffer(self._file.read(count * self._core_bytes), np.uint8)
            cores[:, first : first + count] = stored.reshape(count, core_height, core_width).swapaxes(0, 1)
        return cores.reshape(core_height, -1)

    def read_classes(self, start: int, stop: int) -> np.ndarray:
        """Map rows ``start`` to ``stop`` (exclusive): the class with the highest probability, ``(stop - start, W)`` uint8.

        The lowest index of equal ones, so 0 where nothing was written.
        """
        best = self.read_rows(start, stop)
        classes = np.zeros_like(best)
        for index in range(1, self.num_classes):
            values = self.read_rows(start, stop, index)
            is_higher = values > best
            classes[is_higher] = index
            np.maximum(best, values, out=best)
        return classes


@dataclass(frozen=True)
class ClassProbability:
    """One class of a `ProbabilityMap` as a `RowSource`."""

    source: ProbabilityMap
    index: int

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.source.shape

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop`` (exclusive), ``(stop - start, W)`` uint8."""
        return self.source.read_rows(start, stop, self.index)
