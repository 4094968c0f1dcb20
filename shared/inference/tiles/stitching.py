"""How overlapping tiles become one map: cut at their cores, or blended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..outputs.probability_map import ProbabilityMap
from .map_grid import Axis, MapGrid

TilePosition = tuple[int, int]


class Stitching(Protocol):
    """Takes tiles in any order, gives the map each core once."""

    def prepare(self, probability: Tensor) -> Tensor:
        """Select, on the device, the part of the tiles' probabilities ``(B, C, h, w)`` that must be copied back."""

    def add(self, tile: TilePosition, values: np.ndarray) -> None:
        """Take one tile (row, column) of what `prepare` gave, ``(C, ., .)``."""


def core_of(probability: Tensor, grid: MapGrid) -> Tensor:
    """The part ``(B, C, *grid.core_shape)`` of tiles ``(B, C, h, w)``, in map pixels, that lies within the margins."""
    (top, left), (height, width) = grid.margin_shape, grid.core_shape
    return probability[..., top : top + height, left : left + width]


@dataclass(frozen=True)
class CroppedCores:
    """Each map pixel comes from one tile; the output of a tile beyond its core is discarded.

    Args:
        probability_map: to write to.
        grid: its tiles.
    """

    probability_map: ProbabilityMap
    grid: MapGrid

    def prepare(self, probability: Tensor) -> Tensor:
        core = core_of(probability, self.grid)
        if core.stride()[2:] == (0, 0):  # a classifier's: one value per tile comes back from the device
            return _to_uint8(core[..., :1, :1]).expand_as(core)
        return _to_uint8(core)

    def add(self, tile: TilePosition, values: np.ndarray) -> None:
        self.probability_map.write_tile(tile, values)


def _to_uint8(probability: Tensor) -> Tensor:
    return (probability * 255).round().to(torch.uint8)


@dataclass
class _Core:
    """Weighted sum ``(C, h, w)`` and weight ``(h, w)`` so far, and how many tiles are still missing."""

    total: np.ndarray
    weight: np.ndarray
    missing: int


class BlendedCores:
    """Averages overlapping tiles, weighted by the distance from their edges.

    Weights rise linearly over the overlap, so those of two neighbours make 1. A core is written, and forgotten, when the last
    of the up to nine tiles that reach into it has come: with tiles row by row about one row of tiles is held. Cores of tiles
    that are not wanted stay empty; they do not take part in their neighbours' means either.

    MONAI's `AvgMerger` and `ZarrAvgMerger` hold (the latter on disk, in chunks) sums and counts of the whole map, and divide 0
    by 0 where tiles were left out.

    Args:
        probability_map: to write to.
        grid: its tiles.
        wanted: which of them will come, bool ``(rows, columns)``.

    Raises:
        ValueError: if a margin is wider than a core, so that a tile would reach beyond its neighbours.
    """

    def __init__(self, probability_map: ProbabilityMap, grid: MapGrid, wanted: np.ndarray) -> None:
        check_blending(grid.x)
        check_blending(grid.y)
        self.probability_map, self.grid = probability_map, grid
        # A frame of False spares asking for the border.
        self._wanted = np.pad(wanted, 1)
        margins, steps = grid.margin_shape, grid.core_shape
        rows, columns = (_ramps(step + 2 * margin, margin) for step, margin in zip(steps, margins, strict=True))
        self._weight = np.outer(rows, columns).astype(np.float32)
        self._parts = [_parts(step, margin) for step, margin in zip(steps, margins, strict=True)]
        # Those that wait for more tiles.
        self._cores: dict[TilePosition, _Core] = {}

    def prepare(self, probability: Tensor) -> Tensor:
        return probability

    def add(self, tile: TilePosition, values: np.ndarray) -> None:
        for neighbour, (tile_rows, tile_columns), (rows, columns) in self._touched(tile):
            core = self._cores.get(neighbour) or self._begin(neighbour, len(values))
            weight = self._weight[tile_rows, tile_columns]
            core.total[:, rows, columns] += values[:, tile_rows, tile_columns] * weight
            core.weight[rows, columns] += weight
            core.missing -= 1
            if not core.missing:
                mean = core.total / core.weight
                self.probability_map.write_tile(neighbour, np.rint(mean * 255).astype(np.uint8))
                del self._cores[neighbour]

    def _begin(self, tile: TilePosition, num_classes: int) -> _Core:
        shape = self.grid.core_shape
        num_tiles = sum(1 for _ in self._touched(tile))
        core = _Core(np.zeros((num_classes, *shape), np.float32), np.zeros(shape, np.float32), num_tiles)
        self._cores[tile] = core
        return core

    def _touched(self, tile: TilePosition) -> Iterator[tuple[TilePosition, tuple[slice, slice], tuple[slice, slice]]]:
        """The wanted tiles whose cores `tile` reaches, with the place in `tile` and in that core. Reaching is mutual."""
        for down, tile_rows, core_rows in self._parts[0]:
            for right, tile_columns, core_columns in self._parts[1]:
                row, column = tile[0] + down, tile[1] + right
                if self._wanted[row + 1, column + 1]:
                    yield (row, column), (tile_rows, tile_columns), (core_rows, core_columns)


def check_blending(axis: Axis) -> None:
    if axis.margin > axis.step:
        raise ValueError(
            f"blended tiles may overlap by at most a third of a tile on each side, got a margin of {axis.margin} px "
            f"of tiles of {axis.tile} px"
        )


def _ramps(length: int, margin: int) -> np.ndarray:
    """Weights along a tile, ``(length,)``, in (0, 1].

    >>> _ramps(8, 2)
    array([0.125, 0.375, 0.625, 0.875, 0.875, 0.625, 0.375, 0.125])
    """
    if not margin:
        return np.ones(length)
    distance = np.arange(length) + 0.5
    return np.minimum(np.minimum(distance, distance[::-1]) / (2 * margin), 1)


def _parts(step: int, margin: int) -> list[tuple[int, slice, slice]]:
    """Along one axis: neighbour, place in the tile, place in that neighbour's core."""
    own = [(0, slice(margin, margin + step), slice(0, step))]
    if not margin:
        return own
    before = (-1, slice(0, margin), slice(step - margin, step))
    return [before, *own, (1, slice(margin + step, 2 * margin + step), slice(0, margin))]
