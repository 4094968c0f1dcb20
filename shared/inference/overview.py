"""The whole slide in a picture of bounded size, on the map's own grid: for tissue, shares and the overlay."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import rasterio.features
import shapely
from shapely.geometry import Polygon

from ..data.tissue_cache import TissueCache
from ..geometry.pyramid import exact_tolerance, nearest_finer_level
from ..writers.ome_tiff import RowSource, reduced_strips
from ..wsi.slide import Slide
from ..wsi.tissue.brightfield import brightfield_problem
from ..wsi.tissue.detection import tissue_mask
from .tiles.map_grid import MapGrid

STRIP_AREA_PX = 2**23  # pixels of the level that is read, decoded at once: 25 MB


@dataclass(frozen=True)
class Overview:
    """Picture ``(h, w, 3)`` and tissue ``(h, w)``; a pixel is `factor` map pixels wide and high.

    The last pixels of a row or column may reach beyond the map, which is (H, W) = `map_shape`: they count as far as they lie
    in it. `holds_tissue` ``(h, w)`` is True where there is any tissue in a pixel, `tissue` where it is half of it.
    """

    rgb: np.ndarray
    tissue: np.ndarray
    factor: int
    holds_tissue: np.ndarray
    map_shape: tuple[int, int]

    @property
    def tissue_pixels(self) -> int:
        """Map pixels of the tissue."""
        return int(self._map_pixels[self.tissue].sum())

    @functools.cached_property
    def _map_pixels(self) -> np.ndarray:
        """How many map pixels each pixel covers, int64 ``(h, w)``."""
        return np.outer(*(self._lengths(axis) for axis in (0, 1)))

    def _lengths(self, axis: int) -> np.ndarray:
        starts = self.factor * np.arange(self.tissue.shape[axis])
        return np.minimum(self.factor, self.map_shape[axis] - starts)

    def probability(self, source: RowSource) -> np.ndarray:
        """Mean probability of the map in each overview pixel, float32 ``(h, w)`` in [0, 1]."""
        return np.concatenate(list(reduced_strips(source, self.factor))) / np.float32(255)

    def mean_in_tissue(self, probability: np.ndarray) -> float:
        """Mean of ``(h, w)`` over the tissue; 0 where there is none."""
        if not self.tissue.any():
            return 0.0
        return float(np.average(probability[self.tissue], weights=self._map_pixels[self.tissue]))

    def share(self, polygons: Sequence[Polygon]) -> float:
        """Share of the tissue that lies in `polygons` (map pixels, their sides along rows and columns); 0 where there is none."""
        if not polygons or not self.tissue.any():
            return 0.0
        # A pixel counts by its centre, which of the last ones is that of their part in the map.
        on_overview = shapely.transform(polygons, self._to_overview)
        inside = rasterio.features.rasterize(on_overview, out_shape=self.tissue.shape).astype(bool)
        return float(self._map_pixels[inside & self.tissue].sum() / self.tissue_pixels)

    def _to_overview(self, points: np.ndarray) -> np.ndarray:
        """Points (x, y) in map pixels as points in overview pixels, the last of which are as long as they lie in the map."""
        columns = []
        for values, axis in ((points[:, 0], 1), (points[:, 1], 0)):
            lengths = self._lengths(axis)
            columns.append(np.interp(values, np.append(0, lengths.cumsum()), np.arange(len(lengths) + 1)))
        return np.stack(columns, axis=1)


def read_overview(
    slide: Slide,
    grid: MapGrid,
    downsample: float,
    size_px: int,
    tissue_only: bool,
    method: str = "otsu",
    known: TissueCache | None = None,
) -> Overview:
    """Read a slide's overview, in strips, so that a slide without lower levels takes no more memory either.

    Args:
        slide: the slide.
        grid: its tiles and map.
        downsample: level-0 pixels per model pixel.
        size_px: longest side of the overview, at most.
        tissue_only: find the tissue; without it the whole image counts as tissue.
        method: see `tissue_mask`; the tissue is found on the overview.
        known: where the tissue of slides is kept, instead, with its own method and pixel size.

    Raises:
        ValueError: for a slide that cannot be read, or is no picture of stained tissue on bright glass (`brightfield_problem`).
    """
    map_height, map_width = grid.map_shape
    factor = -(-max(map_height, map_width) // size_px)
    height, width = -(-map_height // factor), -(-map_width // factor)
    pixel = factor * grid.map_downsample * downsample  # level-0 pixels per overview pixel
    tolerance = exact_tolerance(max(width, height))
    level = slide.level_downsamples[nearest_finer_level(slide.level_downsamples, pixel, tolerance)]
    rows = max(1, int(STRIP_AREA_PX / (width * (pixel / level) ** 2)))
    strips = [
        slide.read_regions(np.array([[0, top * pixel]]), (width, min(rows, height - top)), slide.mpp * pixel, exact=True)[0]
        for top in range(0, height, rows)
    ]
    rgb = np.concatenate(strips)
    problem = brightfield_problem(rgb, needs_colour=tissue_only)
    if problem is not None:
        raise ValueError(f"{slide.path} cannot be mapped: {problem}")
    if not tissue_only:
        everywhere = np.ones(rgb.shape[:2], dtype=bool)
        return Overview(rgb, everywhere, factor, everywhere, grid.map_shape)
    if known is None:
        tissue = tissue_mask(rgb, method)
        return Overview(rgb, tissue, factor, tissue, grid.map_shape)
    corners = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2) * pixel
    shares = known.of(slide).shares(corners, pixel).reshape(height, width)
    return Overview(rgb, shares >= 0.5, factor, shares > 0, grid.map_shape)
