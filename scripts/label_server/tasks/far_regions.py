"""Regions in which a network on stored features is uncertain and the tissue is unlike any labelled tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
import torch
from numpy.typing import NDArray

from shared.features.slide_features import SlideFeatures
from shared.inference.region_map import Box
from shared.inference.slide_mapper import SlideMapper

from ..learning.weak_labels import DrawnAreas
from .uncertainty import best_window

_CELLS_TOGETHER = 4096
# Number of cells, drawn at random, that represent a labelled slide.
KNOWN_CELLS = 256
# Distances are computed after a random projection to this many dimensions (Johnson and Lindenstrauss, 1984).
_PROJECTED = 64
_SEED = 0


@dataclass(frozen=True)
class CellScores:
    """The scores of the cells of one slide.

    Args:
        coords: top-left corners ``(n, 2)``, (x, y) in level-0 pixels.
        side_px: side of a cell, in level-0 pixels.
        uncertainty: uncertainties ``(n,)``, from 0 to 1.
        projected: projected features, float32 ``(n, 64)``, by which cells are compared.
    """

    coords: NDArray[np.int64]
    side_px: float
    uncertainty: NDArray[np.float32]
    projected: NDArray[np.float32]


def score_cells(features: SlideFeatures, mapper: SlideMapper, cells: NDArray[np.int64] | None = None) -> CellScores:
    """Score the stored cells of a slide with a network, without running its encoder.

    Args:
        features: features of the slide, made by the network's encoder.
        mapper: mapper of the network.
        cells: indices of the cells to score; None for all.
    """
    wanted = np.arange(len(features)) if cells is None else cells
    device = mapper.compute.torch_device
    generator = torch.Generator().manual_seed(_SEED)
    projection = torch.randn(features.dim, _PROJECTED, generator=generator).to(device) / _PROJECTED**0.5
    uncertainty, projected = [], []
    for start in range(0, len(wanted), _CELLS_TOGETHER):
        vectors = torch.from_numpy(features.read(wanted[start : start + _CELLS_TOGETHER])).to(device).float()
        with torch.inference_mode():
            probability = mapper._network_of_tiles.probability(vectors[:, :, None, None]).mean(dim=(2, 3))
            uncertainty.append(_uncertainty(probability).cpu().numpy())
            projected.append((vectors @ projection).cpu().numpy())
    empty = np.zeros((0, _PROJECTED), np.float32)
    return CellScores(
        features.coords[wanted],
        float(features.stride_px),
        np.concatenate([np.zeros(0, np.float32), *uncertainty]),
        np.concatenate([empty, *projected]),
    )


def _uncertainty(probability: torch.Tensor) -> torch.Tensor:
    """1 minus the lead of the most likely class, from probabilities ``(n, C)``; with C = 1 they are those of tumour."""
    if probability.shape[1] == 1:
        return 1 - (2 * probability[:, 0] - 1).abs()
    first, second = probability.topk(2, dim=1).values.T
    return 1 - (first - second)


def known_cells(coords: NDArray[np.int64], side_px: float, drawn: DrawnAreas) -> NDArray[np.int64]:
    """Indices of the cells that a label covers: those with their centre in a drawn area, or all cells if nothing was drawn.

    At most `KNOWN_CELLS` are returned, the same at every call.
    """
    numbers = np.arange(len(coords))
    if drawn.label is not None:
        area = shapely.union(drawn.tumour, drawn.normal)
        shapely.prepare(area)
        numbers = numbers[shapely.contains_xy(area, *(coords + side_px / 2).T)]
    if len(numbers) > KNOWN_CELLS:
        numbers = np.sort(np.random.default_rng(_SEED).choice(numbers, KNOWN_CELLS, replace=False))
    return numbers


def distances(cells: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distance of each cell from the nearest labelled cell, in feature space; 1 everywhere if there is no labelled cell."""
    if not len(known):
        return np.ones(len(cells), np.float32)
    others = torch.from_numpy(known)
    parts = [torch.cdist(part, others).amin(dim=1) for part in torch.from_numpy(cells).split(_CELLS_TOGETHER)]
    return torch.cat(parts).numpy() if parts else np.zeros(0, np.float32)


def best_region(
    coords: NDArray[np.int64], side_px: float, scores: NDArray[np.float32], size_px: tuple[int, int]
) -> tuple[Box, float]:
    """The region with the highest sum of cell scores, on a grid of half its size, and the mean score over the region.

    Where cells lie on no common grid, as those of other programs may, each counts in the nearest cell of one, and of several
    there the one with the highest score.

    Args:
        coords: top-left corners (x, y) of the cells, in level-0 pixels rounded to whole ones; at least one.
        side_px: side of a cell, in level-0 pixels, not rounded.
        scores: scores of the cells, 0 or more.
        size_px: (width, height) of the region, in level-0 pixels.
    """
    left, top = origin = coords.min(axis=0) % side_px
    # Not np.floor: a corner that was rounded down would lie in the cell before.
    columns, rows = np.rint((coords - origin) / side_px).astype(np.int64).T
    grid = np.zeros((rows.max() + 1, columns.max() + 1))
    np.maximum.at(grid, (rows, columns), scores)
    column, row, mean = best_window(grid, side_px, size_px)
    return (round(left + column * side_px), round(top + row * side_px), *size_px), mean
