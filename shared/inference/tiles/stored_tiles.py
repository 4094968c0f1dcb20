"""Tiles of features that were stored, in place of tiles of pixels: cells of this project, or patches that lie anywhere."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ...features.conventions import num_cells
from ...features.slide_features import SlideFeatures
from .map_grid import Axis, MapGrid
from .stitching import TilePosition
from .tile_reader import Batch

# Corners are whole level-0 pixels, each rounded on its own.
_ROUNDING_PX = 1.0
# What is known of a cell of a tile: nothing, its feature, or, beyond the slide's edge, that of its mirror image on the slide.
MISSING, STORED, MIRRORED = 0, 1, 2


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
            positions (row, column), and float16 ``(B, h, w, dim + 1)``: the features of each cell, 0 where there is none, and
            `MISSING`, `STORED` or `MIRRORED`. Cells are mirrored at the slide's edge, as its pixels are for a map from these.
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
        has_feature = windows >= 0
        # Each once, also where tiles overlap.
        unique, places = np.unique(windows[has_feature], return_inverse=True)
        tiles[has_feature, :-1] = self.vectors(unique)[places]
        on_slide = np.stack([self._on_slide(grid, position, numbers.shape) for position in positions])
        tiles[..., -1] = np.where(has_feature, np.where(on_slide, STORED, MIRRORED), MISSING)
        return tiles

    def _windows(self, grid: MapGrid, positions: list[TilePosition], numbers: np.ndarray) -> Iterator[np.ndarray]:
        """Indices of the features of each tile's cells, ``(h, w)``, -1 for none."""
        for row, column in positions:
            rows, columns = self._cells(grid.y, row), self._cells(grid.x, column)
            if not numbers.size:
                # A slide that is smaller than half a cell.
                yield np.full((len(rows), len(columns)), -1, numbers.dtype)
                continue
            yield numbers[np.ix_(_mirrored(rows, numbers.shape[0]), _mirrored(columns, numbers.shape[1]))]

    def _on_slide(self, grid: MapGrid, position: TilePosition, shape: tuple[int, ...]) -> np.ndarray:
        """Which of a tile's cells are those of the slide, bool ``(h, w)``."""
        rows, columns = self._cells(grid.y, position[0]), self._cells(grid.x, position[1])
        return ((rows >= 0) & (rows < shape[0]))[:, None] & ((columns >= 0) & (columns < shape[1]))

    def _cells(self, axis: Axis, index: int) -> np.ndarray:
        """The stored cells along one axis of a tile."""
        start = (index * axis.step - axis.margin) // self.stride_px
        return np.arange(start, start - (-axis.tile // self.stride_px)) // self.repeats


def _mirrored(cells: np.ndarray, length: int) -> np.ndarray:
    """Cells along an axis, mirrored at both ends: the outermost ones are repeated, for a cell's own edge is the slide's."""
    places = cells % (2 * length)
    return np.minimum(places, 2 * length - 1 - places)


@dataclass(frozen=True)
class PlacedPatches(StoredCells):
    """A slide's features by another program: its patches may begin anywhere, overlap, and leave gaps.

    A place is a square of `stride_px`, and the places of a slide begin at its corner. One whose centre lies on a single patch
    has its vector, unchanged: patches are of a nominal size, places of the slide's true one, which differ by some per cent. One
    whose centre lies on several has the mean of the vectors of all patches that it touches, by the area that it has in common
    with each. Other places have none.

    Args:
        downsample: level-0 pixels per model pixel.
        size_px: (width, height) of the slide.
        channels: length of a vector, also where there is none.
    """

    downsample: float = 1.0
    size_px: tuple[int, int] = (1, 1)
    channels: int = 0

    @property
    def dim(self) -> int:
        return self.channels

    @cached_property
    def weights(self) -> csr_array:
        """The weight in each place ``(rows * columns)`` of each patch ``(n)``."""
        rows, columns = self._shape
        if not len(self.features):
            return csr_array((rows * columns, 0))
        corners, side = self.features.coords / self._place_px, self.features.patch_px / self._place_px
        return patch_weights(corners, side, (rows, columns), _ROUNDING_PX / self._place_px)

    @property
    def _place_px(self) -> float:
        """Side of a place in level-0 pixels."""
        return self.stride_px * self.downsample

    @property
    def _shape(self) -> tuple[int, int]:
        """(rows, columns) of the places."""
        columns, rows = (num_cells(length, self._place_px) for length in self.size_px)
        return rows, columns

    def numbers(self) -> NDArray[np.int64]:
        is_stored = np.diff(self.weights.indptr) > 0
        return np.where(is_stored, np.arange(len(is_stored)), -1).reshape(self._shape)

    def vectors(self, numbers: NDArray[np.int64]) -> NDArray[np.float16]:
        if not len(numbers):
            return np.zeros((0, self.dim), np.float16)
        weights = self.weights[numbers]
        used, columns = np.unique(weights.indices, return_inverse=True)
        of_used = csr_array((weights.data, columns, weights.indptr), shape=(len(numbers), len(used)))
        means = (of_used @ self.features.read(used).astype(np.float64)) / of_used.sum(axis=1)[:, None]
        return means.astype(np.float16)


def patch_weights(corners: NDArray[np.floating], side: float, shape: tuple[int, int], rounding: float = 0.0) -> csr_array:
    """The share of each place that each patch covers, of those that give the place its vector, see `PlacedPatches`.

    Args:
        corners: (x, y) of the patches' top-left corners, ``(n, 2)``, in units of a place.
        side: of a patch, in units of a place.
        shape: (rows, columns) of the places.
        rounding: edges of patches that are so close to those of places are taken for them.

    Returns:
        ``(rows * columns, n)``: of places whose centre lies on one patch the entry of this patch, of those whose centre lies on
        several the entries of all patches that they touch, and of others none.
    """
    start, stop = (_snapped(edges, rounding) for edges in (corners, corners + side))
    first = np.floor(start).astype(np.int64)
    num_steps = int(np.ceil(stop - first).max())
    places, patches, areas, is_centre = [], [], [], []
    for step_y, step_x in np.ndindex(num_steps, num_steps):
        place = first + np.array([step_x, step_y])
        common = np.clip(np.minimum(stop, place + 1) - np.maximum(start, place), 0, None).prod(axis=1)
        touched = np.flatnonzero((common > 0) & (place >= 0).all(axis=1) & (place < shape[::-1]).all(axis=1))
        places.append(place[touched, 1] * shape[1] + place[touched, 0])
        patches.append(touched)
        areas.append(common[touched])
        centre = place[touched] + 0.5
        is_centre.append(((start[touched] <= centre) & (centre < stop[touched])).all(axis=1))
    place_of, patch_of, area, has_centre = (np.concatenate(parts) for parts in (places, patches, areas, is_centre))
    centred = np.bincount(place_of[has_centre], minlength=shape[0] * shape[1])[place_of]
    kept = np.where(centred == 1, has_centre, centred > 1)
    entries = area[kept], (place_of[kept], patch_of[kept])
    return csr_array(entries, shape=(shape[0] * shape[1], len(corners)))


def _snapped(edges: NDArray[np.floating], rounding: float) -> NDArray[np.float64]:
    whole = np.rint(edges)
    return np.where(np.abs(edges - whole) <= rounding, whole, edges)
