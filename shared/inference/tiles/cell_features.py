"""Encoder -> features of a slide's cells in a file, with reading, computing and storing at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ...features.feature_writer import SlideFeatureWriter
from ..stopwatch import Stopwatch
from .map_grid import MapGrid
from .returning import Returning
from .stitching import TilePosition
from .tile_reader import Batch


@dataclass(frozen=True)
class WantedCells:
    """Which cells of a slide are stored.

    Args:
        grid: the slide's tiles; its map pixels are the cells.
        is_wanted: bool ``(rows, columns)`` of the cells whose centre lies on the slide.
        tissue: share of tissue in each, float ``(rows, columns)``.
    """

    grid: MapGrid
    is_wanted: np.ndarray
    tissue: np.ndarray

    def of_tile(self, tile: TilePosition) -> tuple[np.ndarray, np.ndarray]:
        """Wanted cells of a tile's core, ``(n, 2)``: (row, column) in the core, and the same in the slide."""
        height, width = self.grid.core_shape
        corner = np.array([tile[0] * height, tile[1] * width])
        inside = np.argwhere(self.is_wanted[corner[0] : corner[0] + height, corner[1] : corner[1] + width])
        return inside, inside + corner


@torch.inference_mode()
def store_features(
    writer: SlideFeatureWriter,
    cells: WantedCells,
    batches: Iterable[Batch],
    network: Callable[[Tensor, tuple[int, int]], Tensor],
    progress: tqdm,
    stopwatch: Stopwatch,
) -> None:
    """Compute each batch and store it; a batch comes back from the device and is stored while the next one is computed.

    Args:
        writer: gets the features of the wanted cells, tile by tile.
        cells: which are wanted.
        batches: positions and tiles, see `read_batches`.
        network: `TileFeatures`, or its compiled form.
        progress: counts tiles.
        stopwatch: gets the seconds of waiting for tiles, of the network (on CUDA only of giving it its orders), and of storing,
            waiting for the device included.
    """
    waiting: tuple[list[TilePosition], Returning] | None = None
    grid = cells.grid
    (top, left), (height, width) = grid.margin_shape, grid.core_shape
    for positions, tiles in stopwatch.measure_waiting("waiting for tiles", batches):
        with stopwatch.measure("network"):
            features = network(tiles, grid.map_tile_shape)[:, top : top + height, left : left + width]
            following = (positions, Returning(features))
        if waiting is not None:
            _store(*waiting, writer, cells, progress, stopwatch)
        waiting = following
    if waiting is not None:
        _store(*waiting, writer, cells, progress, stopwatch)


def _store(
    positions: list[TilePosition],
    returning: Returning,
    writer: SlideFeatureWriter,
    cells: WantedCells,
    progress: tqdm,
    stopwatch: Stopwatch,
) -> None:
    with stopwatch.measure("storing"):
        (features,) = returning.wait()
        for position, of_tile in zip(positions, features.numpy(), strict=True):
            inside, in_slide = cells.of_tile(position)
            tissue = cells.tissue[in_slide[:, 0], in_slide[:, 1]]
            writer.append(of_tile[inside[:, 0], inside[:, 1]], in_slide, tissue)
    progress.update(len(positions))
