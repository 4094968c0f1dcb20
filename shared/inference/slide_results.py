"""One image's finished map -> its three files and the numbers of its row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from ..writers import tumour_feature, write_geojson, write_ome_tiff, write_overlay
from .overview import Overview
from .polygons import Region, tumour_regions
from .probability_map import ProbabilityMap

RESULT_SUFFIXES = (".ome.tif", ".geojson", ".png")
SHORTEST_RING_PX = 16  # of the overlay: outlines of specks and pinholes would hide the picture


@dataclass(frozen=True)
class Scale:
    """How an image's frames hang together.

    Args:
        size_px: (width, height) of level 0.
        mpp: micrometres per level-0 pixel.
        downsample: level-0 pixels per model pixel.
        map_downsample: model pixels per map pixel.
    """

    size_px: tuple[int, int]
    mpp: float
    downsample: float
    map_downsample: int

    @property
    def map_pixel(self) -> float:
        """Level-0 pixels per map pixel."""
        return self.downsample * self.map_downsample

    @property
    def map_mpp(self) -> float:
        """Micrometres per map pixel."""
        return self.mpp * self.map_pixel


def write_results(
    base: Path,
    probability_map: ProbabilityMap,
    overview: Overview,
    scale: Scale,
    threshold: float,
    min_area_um2: float,
) -> dict[str, Any]:
    """Write ``<base>.ome.tif``, ``.geojson`` and ``.png``.

    Args:
        base: folder and name.
        probability_map: the finished map.
        overview: of the same image.
        scale: of the same image.
        threshold: probability from which a map pixel is tumour.
        min_area_um2: smaller polygons are left out, of the areas too.

    Returns:
        the image's numbers, as columns of the table.
    """
    pixel_um2 = scale.map_mpp**2
    # Less a hair, because 25000 / 4.0000001 is no reason to drop a region of exactly the least area.
    min_pixels = math.ceil(min_area_um2 / pixel_um2 - 1e-6)
    regions = list(tumour_regions(probability_map, threshold, min_pixels))
    polygons = [region.polygon for region in regions]
    probability = overview.probability(probability_map)
    write_ome_tiff(base.with_name(f"{base.name}.ome.tif"), probability_map, scale.map_mpp)
    write_geojson(base.with_name(f"{base.name}.geojson"), (_feature(region, scale) for region in regions))
    write_overlay(base.with_name(f"{base.name}.png"), overview.rgb, probability, _rings(polygons, overview.factor))
    return {
        "tumour_area_mm2": sum(region.num_pixels for region in regions) * pixel_um2 / 1e6,
        "tumour_share": overview.share(polygons),
        "tissue_area_mm2": int(overview.tissue.sum()) * overview.factor**2 * pixel_um2 / 1e6,
        "max_probability": probability_map.max_value / 255,
        "mean_probability": float(probability[overview.tissue].mean()) if overview.tissue.any() else 0.0,
        "num_regions": len(regions),
        "mpp": scale.mpp,
        "map_mpp": scale.map_mpp,
        "width_px": scale.size_px[0],
        "height_px": scale.size_px[1],
    }


def _feature(region: Region, scale: Scale) -> dict[str, Any]:
    polygon = shapely.transform(region.polygon, lambda points: points * scale.map_pixel)
    area_um2 = region.num_pixels * scale.map_mpp**2
    return tumour_feature(polygon, {"Area µm^2": area_um2, "Mean probability": region.mean_probability})


def _rings(polygons: Sequence[shapely.Polygon], factor: int) -> list[np.ndarray]:
    """Outlines in overview pixels, each ``(n, 2)``."""
    rings = (ring for polygon in polygons for ring in (polygon.exterior, *polygon.interiors))
    return [np.asarray(ring.coords) / factor for ring in rings if ring.length >= SHORTEST_RING_PX * factor]
