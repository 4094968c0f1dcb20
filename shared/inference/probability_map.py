"""A probability map of any size in a file of its own, written tile by tile in any order and read by rows."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np

from .map_grid import MapGrid


class ProbabilityMap:
    """uint8 ``(H, W)`` on disk, 0 where nothing was written.

    The file holds the tiles' cores one after the other, so that a tile is one write and a strip is one read. It is not
    a memory map, because its pages would count as the process's memory. The file is sparse: tiles that are never
    written take no space. Use as a context manager; leaving it removes the file.

    Attributes:
        shape: (H, W).
        max_value: the largest value written.

    Args:
        path: where to keep it; an existing file is overwritten.
        grid: the image's tiles.
    """

    def __init__(self, path: str | Path, grid: MapGrid) -> None:
        self.path = Path(path)
        self.shape = grid.map_shape
        self.max_value = 0
        self._core_shape = grid.core_shape
        self._num_tiles = grid.num_tiles
        self._core_bytes = self._core_shape[0] * self._core_shape[1]
        self._file = self.path.open("wb+", buffering=0)
        self._file.truncate(self._core_bytes * self._num_tiles[0] * self._num_tiles[1])

    def __enter__(self) -> ProbabilityMap:
        return self

    def __exit__(self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def write_tile(self, tile: tuple[int, int], core: np.ndarray) -> None:
        """Store the core of `tile` (row, column): uint8, `core_shape` of the grid; what lies outside is dropped."""
        if core.shape != self._core_shape or core.dtype != np.uint8:
            raise ValueError(f"a tile's core is uint8 {self._core_shape}, got {core.dtype} {core.shape}")
        inside = core[: self.shape[0] - tile[0] * core.shape[0], : self.shape[1] - tile[1] * core.shape[1]]
        self.max_value = max(self.max_value, int(inside.max()))
        self._file.seek((tile[0] * self._num_tiles[1] + tile[1]) * self._core_bytes)
        self._file.write(np.ascontiguousarray(core).data)

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        """Map rows ``start`` to ``stop`` (exclusive), ``(stop - start, W)`` uint8."""
        core_height, core_width = self._core_shape
        columns, strips = self._num_tiles[1], []
        for row in range(start // core_height, -(-stop // core_height)):
            self._file.seek(row * columns * self._core_bytes)
            cores = np.frombuffer(self._file.read(columns * self._core_bytes), np.uint8)
            strip = cores.reshape(columns, core_height, core_width).swapaxes(0, 1).reshape(core_height, -1)
            top = row * core_height
            strips.append(strip[max(start - top, 0) : stop - top, : self.shape[1]])
        return np.concatenate(strips)
