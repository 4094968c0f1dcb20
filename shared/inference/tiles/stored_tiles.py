"""Tiles of features that were stored, in place of tiles of pixels."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...features.slide_features import SlideFeatures
from .map_grid import Axis, MapGrid
from .stitching import TilePosition
from .tile_reader import Batch


@dataclass(frozen=True)
class StoredCells:
    """A slide's stored features on the grid of an encoder's places.

    Args:
        features: of the slide, cell (0, 0) at its corner.
        stride_px: of the encoder, in model pixels.
        repeats: places of the encoder along a stored cell: more than 1 where a feature stands for a whole tile.
    """

    features: SlideFeatures
    stride_px: int
    repeats: int = 1

    def check_grid(self, grid: MapGrid) -> None:
        """Check that tiles begin and end with cells.

        Raises:
            ValueError: naming the file, if they do not.
        """
        for axis in (grid.x, grid.y):
            if axis.count > 1 and (axis.margin % self.stride_px or axis.step % self.stride_px):
                raise ValueError(
                    f"{self.features.path}: a map from features needs tiles of whole cells: tile_size_px and margin_px must be "
                    f"multiples of {self.stride_px}, the encoder's stride; got {axis.tile} and {axis.margin}"
                )

    def read_batches(
        self, grid: MapGrid, wanted: np.ndarray, batch_size: int, device: torch.device
    ) -> Generator[Batch, None, None]:
        """Tiles of features.

        Args:
            grid: the slide's tiles.
            wanted: which of them, bool ``(rows, columns)``.
            batch_size: tiles per batch; the last may have fewer.
            device: where the batches are wanted.

        Yields:
            positions (row, column), and float16 ``(B, h, w, dim + 1)``: the features of each cell, 0 where none is stored, and
            whether one is (1 or 0).
        """
        places = [(int(row), int(column)) for row, column in np.argwhere(wanted)]
        try:
            numbers = self.numbers()
            for start in range(0, len(places), batch_size):
                positions = places[start : start + batch_size]
                yield positions, torch.from_numpy(self._tiles(grid, positions, numbers)).to(device)
        finally:
            self.features.close()

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.features.dim

    def numbers(self) -> NDArray[np.int64]:
        """A number for each cell of the slide that has a vector, and -1 for the others, ``(rows, columns)``."""
        return self.features.lay_out(np.arange(1, len(self.features) + 1)) - 1

    def vectors(self, numbers: NDArray[np.int64]) -> NDArray[np.float16]:
        """The vectors ``(n, dim)`` of cells by their `numbers`."""
        return self.features.read(numbers)

    def _tiles(self, grid: MapGrid, positions: list[TilePosition], numbers: np.ndarray) -> np.ndarray:
        windows = np.stack(list(self._windows(grid, positions, numbers)))
        tiles = np.zeros((*windows.shape, self.dim + 1), np.float16)
        is_stored = windows >= 0
        # Each once, also where tiles overlap.
        unique, places = np.unique(windows[is_stored], return_inverse=True)
        tiles[is_stored, :-1] = self.vectors(unique)[places]
        tiles[is_stored, -1] = 1
        return tiles

    def _windows(self, grid: MapGrid, positions: list[TilePosition], numbers: np.ndarray) -> Iterator[np.ndarray]:
        """Indices of the features of each tile's cells, ``(h, w)``, -1 for none."""
        for row, column in positions:
            rows, columns = self._cells(grid.y, row), self._cells(grid.x, column)
            window = np.full((len(rows), len(columns)), -1, numbers.dtype)
            on_slide = np.ix_((rows >= 0) & (rows < numbers.shape[0]), (columns >= 0) & (columns < numbers.shape[1]))
            window[on_slide] = numbers[np.ix_(rows[on_slide[0].ravel()], columns[on_slide[1].ravel()])]
            yield window

    def _cells(self, axis: Axis, index: int) -> np.ndarray:
        """The stored cells along one axis of a tile."""
        start = (index * axis.step - axis.margin) // self.stride_px
        return np.arange(start, start - (-axis.tile // self.stride_px)) // self.repeats
