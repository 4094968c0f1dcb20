"""Network -> probabilities on the map's grid, with reading, computing and storing at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from ...writers.wsinfer_table import TileTable
from ..stopwatch import Stopwatch
from .map_grid import MapGrid
from .returning import Returning
from .stitching import Stitching, TilePosition, core_of
from .tile_reader import Batch

TileProbabilities = Callable[[Tensor, tuple[int, int]], Tensor]


class AnswersNotFinite(ValueError):
    """A network gives NaN, which in a map would be 0, no tumour. No image is to blame, so none is skipped for it."""


class _Predicted:
    """One batch on its way back from the device."""

    def __init__(self, positions: list[TilePosition], values: Tensor, means: Tensor) -> None:
        self.positions, self._returning = positions, Returning(values, means)

    def store(self, stitching: Stitching, table: TileTable | None) -> None:
        all_values, all_means = self._returning.wait()
        # Here, where they have arrived: to ask the device would make it wait. Probabilities with a NaN have no other mean.
        if not all_means.isfinite().all() or (all_values.is_floating_point() and not all_values.isfinite().all()):
            raise AnswersNotFinite(
                "the network's answers are not finite: expected probabilities, found NaN. Its weights or its normalisation are "
                "at fault, or half precision: --slide_mapper::compute::amp False computes in float32"
            )
        for position, values, means in zip(self.positions, all_values.numpy(), all_means.tolist(), strict=True):
            stitching.add(position, values)
            if table is not None:
                table.add(position, means)


@torch.inference_mode()
def fill_map(
    stitching: Stitching,
    grid: MapGrid,
    batches: Iterable[Batch],
    network: TileProbabilities,
    progress: tqdm,
    stopwatch: Stopwatch,
    table: TileTable | None = None,
) -> None:
    """Compute each batch and store it; a batch comes back from the device and is stored while the next one is computed.

    Args:
        stitching: brings the tiles into the map.
        grid: its tiles.
        batches: positions and tiles, see `read_batches`.
        network: `TileNetwork`, or its compiled form.
        progress: counts tiles.
        stopwatch: gets the seconds of waiting for tiles, of the network (on CUDA only of giving it its orders), and of storing,
            waiting for the device included.
        table: gets a row per tile, with the mean of its core.

    Raises:
        AnswersNotFinite: if a probability is NaN.
    """
    waiting: _Predicted | None = None
    for positions, tiles in stopwatch.measure_waiting("waiting for tiles", batches):
        with stopwatch.measure("network"):
            probability = _map_pixels(network, tiles, grid)
            predicted = _Predicted(positions, stitching.prepare(probability), core_of(probability, grid).mean(dim=(2, 3)))
        if waiting is not None:
            _store(waiting, stitching, table, progress, stopwatch)
        waiting = predicted
    if waiting is not None:
        _store(waiting, stitching, table, progress, stopwatch)


def _map_pixels(network: TileProbabilities, tiles: Tensor, grid: MapGrid) -> Tensor:
    """Tiles' probabilities ``(B, C, *grid.map_tile_shape)``."""
    if all(length % grid.map_downsample == 0 for length in grid.tile_shape):
        return network(tiles, grid.map_tile_shape)
    # A tile as long as its image need not be whole map pixels: of the last ones the mean is taken over what there is of them.
    return functional.avg_pool2d(network(tiles, grid.tile_shape), grid.map_downsample, ceil_mode=True)


def _store(predicted: _Predicted, stitching: Stitching, table: TileTable | None, progress: tqdm, stopwatch: Stopwatch) -> None:
    with stopwatch.measure("storing"):
        predicted.store(stitching, table)
    progress.update(len(predicted.positions))
