"""The part of a slide's tissue that lies inside outlines."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from shapely.geometry import Polygon

from shared.data.tissue_cache import TissueCache
from shared.geometry.pyramid import nearest_finer_level
from shared.inference.overview import Overview, read_overview
from shared.inference.tiles.map_grid import MapGrid
from shared.wsi import Slide

from .cohort import Maps

logger = logging.getLogger(__name__)

# Pixels of a slide that are read for its tissue: some seconds. Only a large slide without coarse levels has more.
_LARGEST_SOURCE_PX = 2**28
# By which the tissue's area may differ from that of the map's row, relatively.
_AREA_TOLERANCE = 0.01


def written_share(maps: Maps, name: str) -> float | None:
    """The part of the tissue inside the outlines that were written with a map: all classes' together; None without tissue."""
    shares = [value for column, value in maps.rows[name].items() if column.startswith(("tumour_share", "share_")) and value]
    return math.fsum(map(float, shares)) if shares else None


def share_inside(overview: Overview | None, polygons: Sequence[Polygon]) -> float | None:
    """The part of the tissue inside `polygons`, in map pixels; None where the tissue is not known."""
    return None if overview is None else overview.share(polygons)


def find_overview(slide: Slide, maps: Maps, name: str, map_shape: tuple[int, int], map_pixel: float) -> Overview | None:
    """The picture in which the tissue of a map was found, made again.

    Args:
        slide: the open slide.
        maps: maps of the method.
        name: of the slide.
        map_shape: (H, W) of the map.
        map_pixel: level-0 pixels per map pixel.

    Returns:
        None, with a warning, where the slide would take long to read, or the tissue found now is not that of the map.
    """
    settings, area_mm2 = maps.settings, float(maps.rows[name].get("tissue_area_mm2") or "nan")
    longest, size_px = max(map_shape), int(settings.get("overview_size_px") or 1024)
    level = nearest_finer_level(slide.level_downsamples, longest * map_pixel / size_px)
    if math.prod(slide.level_sizes_px[level]) > _LARGEST_SOURCE_PX:
        logger.warning(
            "%s has no coarse level, and reading it takes long: the share of tissue is shown at its map's own threshold alone",
            slide.path,
        )
        return None
    # The map as an image of its own, in a single tile.
    grid = MapGrid.of_image((map_shape[1], map_shape[0]), longest, 0, 1)
    method, is_tissue_only = str(settings.get("tissue_method") or "otsu"), bool(settings.get("tissue_only", True))
    try:
        found = read_overview(slide, grid, map_pixel, size_px, is_tissue_only, method, _known_tissue(maps))
    except ValueError as error:
        logger.warning("the share of tissue is shown at the map's own threshold alone: %s", error)
        return None
    found_mm2 = found.tissue_pixels * float(maps.rows[name]["map_mpp"]) ** 2 / 1e6
    if not abs(found_mm2 - area_mm2) <= _AREA_TOLERANCE * area_mm2:
        logger.warning(
            "%s: its map in %s was made with %.4f mm2 of tissue, and %.4f mm2 are found now, with the settings of the folder's "
            "latest run: the share of tissue is shown at the map's own threshold alone",
            *(name, maps.folder, area_mm2, found_mm2),
        )
        return None
    return found


def _known_tissue(maps: Maps) -> TissueCache | None:
    """The tissue masks with which the maps were made, which are read and not written."""
    folder = maps.settings.get("tissue_dir")
    if folder is None:
        return None
    kept = {
        name: maps.settings[f"tissue_{name}"] for name in ("mpp", "method") if maps.settings.get(f"tissue_{name}") is not None
    }
    return TissueCache(Path(folder), **kept, keep=False)
