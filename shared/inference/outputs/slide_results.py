"""One image's finished map -> its files and the numbers of its row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import shapely

from ...writers.geojson import TUMOUR_CLASS, annotation_feature, write_geojson
from ...writers.geoparquet import write_geoparquet
from ...writers.legend import Legend
from ...writers.ome_tiff import RowSource, write_ome_tiff, write_ome_tiff_channels
from ...writers.ome_zarr import write_ome_zarr
from ...writers.optional_formats import GEOPARQUET_SUFFIX, OME_ZARR_SUFFIX
from ...writers.overlay import PROBABILITY_COLOURS, class_overlay_image, overlay_image, write_overlay
from ...writers.palette import TUMOUR_COLOUR, Colour, class_colour
from ...writers.volume import VOLUME_SUFFIXES, write_volume
from ...writers.wsinfer_table import column_name
from ...wsi.annotations.frames import QUPATH, frame_origin_px
from ..overview import Overview
from ..row import Row
from ..tiles.map_grid import MapGrid
from .polygons import Region, class_regions, simplified, tumour_regions
from .probability_map import ProbabilityMap

RESULT_SUFFIXES = (".ome.tif", ".geojson", ".png")
TILE_TABLE_SUFFIX = ".tiles.csv"
# Written by key only; a result that is taken back takes these along.
OPTIONAL_SUFFIXES = (TILE_TABLE_SUFFIX, *VOLUME_SUFFIXES.values(), OME_ZARR_SUFFIX, GEOPARQUET_SUFFIX)
REPLACED_SUFFIXES = (*RESULT_SUFFIXES, *OPTIONAL_SUFFIXES)
SHORTEST_RING_PX = 16  # of the overlay: outlines of specks and pinholes would hide the picture
TUMOUR_PROBABILITY = "Tumour probability"
BACKGROUND_COLOUR = (128, 128, 128)  # of class 0 as a channel


@dataclass(frozen=True)
class Scale:
    """How an image's frames hang together.

    Args:
        size_px: (width, height) of level 0.
        mpp: micrometres per level-0 pixel.
        downsample: level-0 pixels per model pixel.
        map_downsample: model pixels per map pixel.
        qupath_origin_px: (x, y) at level 0 from which QuPath counts, see `Slide.qupath_origin_px`.
    """

    size_px: tuple[int, int]
    mpp: float
    downsample: float
    map_downsample: int
    qupath_origin_px: tuple[int, int] = (0, 0)

    @property
    def map_pixel(self) -> float:
        """Level-0 pixels per map pixel."""
        return self.downsample * self.map_downsample

    @property
    def map_mpp(self) -> float:
        """Micrometres per map pixel."""
        return self.mpp * self.map_pixel

    def core_box(self, grid: MapGrid, tile: tuple[int, int]) -> tuple[int, int, int, int]:
        """(x, y, width, height) of the core of `tile` (row, column) in level-0 pixels, cut at the slide's border."""
        spans = []
        for index, axis, length in ((tile[1], grid.x, self.size_px[0]), (tile[0], grid.y, self.size_px[1])):
            start, stop = (min(round((index + end) * axis.step * self.downsample), length) for end in (0, 1))
            spans.append((start, stop - start))
        return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


@dataclass(frozen=True)
class ResultOptions:
    """Options of the results that are made from a map.

    Args:
        class_names: of a map of several classes, class 0 being the background; None for a map of tumour.
        threshold: of a map of tumour, the probability from which a map pixel is tumour.
        min_area_um2: smaller polygons are left out, of the areas too.
        simplify_um: outlines move by no more than this to have fewer points; 0: they follow the map's pixels.
        volume: ``"nifti"`` or ``"metaimage"``, to write the map as such too.
        annotation_frame: of the outlines' coordinates, one of `ANNOTATION_FRAMES`.
        ome_zarr: to write the map as OME-Zarr too.
        geoparquet: to write the outlines as GeoParquet too.
    """

    class_names: Sequence[str] | None
    threshold: float
    min_area_um2: float
    simplify_um: float
    volume: str | None
    annotation_frame: str = QUPATH
    ome_zarr: bool = False
    geoparquet: bool = False


def write_results(base: Path, probability_map: ProbabilityMap, overview: Overview, scale: Scale, options: ResultOptions) -> Row:
    """Write ``<base>.ome.tif``, ``.geojson`` and ``.png``, and a volume, OME-Zarr and GeoParquet where asked for.

    Args:
        base: folder and name.
        probability_map: the finished map.
        overview: of the same image.
        scale: of the same image.
        options: what to make of it.

    Returns:
        the image's numbers, as columns of the table.
    """
    make = _binary_results if options.class_names is None else _class_results
    numbers = make(base, probability_map, overview, scale, options)
    if options.volume is not None:
        sources = [probability_map.of_class(index) for index in range(probability_map.num_classes)]
        write_volume(base.with_name(base.name + VOLUME_SUFFIXES[options.volume]), sources, scale.map_mpp, options.volume)
    if options.ome_zarr:
        _write_ome_zarr(base, probability_map, scale, options)
    return numbers | {
        "mpp": scale.mpp,
        "map_mpp": scale.map_mpp,
        "width_px": scale.size_px[0],
        "height_px": scale.size_px[1],
        "min_area_um2": options.min_area_um2,
        "simplify_um": options.simplify_um,
    }


def _binary_results(base: Path, probability_map: ProbabilityMap, overview: Overview, scale: Scale, options: ResultOptions) -> Row:
    with _meanwhile(write_ome_tiff, _path(base, ".ome.tif"), probability_map, scale.map_mpp, TUMOUR_PROBABILITY):
        found = list(tumour_regions(probability_map, options.threshold, least_pixels(scale, options)))
        probability = overview.probability(probability_map)
    _write_outlines(base, {TUMOUR_CLASS: (TUMOUR_COLOUR, found)}, scale, options)
    rings = [ring for region in found for ring in _rings(region, overview.factor)]
    legend = Legend(
        scale.map_mpp * overview.factor, [(f"{TUMOUR_CLASS} (from {options.threshold:g})", TUMOUR_COLOUR)], PROBABILITY_COLOURS
    )
    write_overlay(_path(base, ".png"), overlay_image(overview.rgb, probability, rings), legend)
    return {
        "tumour_area_mm2": _area_mm2(found, scale),
        "tumour_share": overview.share([region.polygon for region in found]),
        "tissue_area_mm2": _tissue_mm2(overview, scale),
        "max_probability": int(probability_map.max_values[0]) / 255,
        "mean_probability": overview.mean_in_tissue(probability),
        "num_regions": len(found),
        "threshold": options.threshold,
    }


def _class_results(base: Path, probability_map: ProbabilityMap, overview: Overview, scale: Scale, options: ResultOptions) -> Row:
    names = list(options.class_names or ())
    colours = [class_colour(index) for index in range(1, len(names))]
    found: dict[int, list[Region]] = {index: [] for index in range(1, len(names))}
    sources: dict[str, RowSource] = {name: probability_map.of_class(index) for index, name in enumerate(names)}
    channel_colours = class_channel_colours(len(names))
    with _meanwhile(write_ome_tiff_channels, _path(base, ".ome.tif"), sources, scale.map_mpp, channel_colours):
        for index, region in class_regions(probability_map, least_pixels(scale, options)):
            found[index].append(region)
        probabilities = np.stack([overview.probability(source) for source in sources.values()])
    by_class = {name: (colour, found[index]) for index, (name, colour) in enumerate(zip(names[1:], colours, strict=True), 1)}
    _write_outlines(base, by_class, scale, options)
    rings = [
        (ring, colour) for colour, regions in by_class.values() for region in regions for ring in _rings(region, overview.factor)
    ]
    legend = Legend(scale.map_mpp * overview.factor, list(zip(names[1:], colours, strict=True)))
    write_overlay(_path(base, ".png"), class_overlay_image(overview.rgb, probabilities, colours, rings), legend)
    numbers: dict[str, Any] = {}
    for index, regions in found.items():
        column = column_name(names[index])
        numbers[f"area_mm2_{column}"] = _area_mm2(regions, scale)
        numbers[f"share_{column}"] = overview.share([region.polygon for region in regions])
        numbers[f"mean_probability_{column}"] = overview.mean_in_tissue(probabilities[index])
    row: Row = {"tissue_area_mm2": _tissue_mm2(overview, scale), "num_regions": sum(map(len, found.values()))}
    return cast(Row, numbers | row)


def class_channel_colours(num_classes: int) -> list[Colour]:
    """Colours of the channels of a map of several classes, class 0 being the background."""
    return [BACKGROUND_COLOUR, *map(class_colour, range(1, num_classes))]


def _write_outlines(
    base: Path, by_class: Mapping[str, tuple[Colour, Sequence[Region]]], scale: Scale, options: ResultOptions
) -> None:
    write_geojson(_path(base, ".geojson"), annotation_features(by_class, scale, options), options.annotation_frame)
    if options.geoparquet:
        notes = {"annotation_frame": options.annotation_frame, "mpp": scale.mpp}
        write_geoparquet(_path(base, GEOPARQUET_SUFFIX), annotation_features(by_class, scale, options), notes)


def _write_ome_zarr(base: Path, probability_map: ProbabilityMap, scale: Scale, options: ResultOptions) -> None:
    names = [TUMOUR_PROBABILITY] if options.class_names is None else list(options.class_names)
    colours = [TUMOUR_COLOUR] if len(names) == 1 else class_channel_colours(len(names))
    sources: dict[str, RowSource] = {name: probability_map.of_class(index) for index, name in enumerate(names)}
    write_ome_zarr(_path(base, OME_ZARR_SUFFIX), sources, scale.map_mpp, colours)


@contextmanager
def _meanwhile(write: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Write in another thread while the block runs; leaving it waits for the file, and raises what the writing raised."""
    with ThreadPoolExecutor(1, thread_name_prefix="write-map") as executor:
        written = executor.submit(write, *arguments)
        yield
        written.result()


def _path(base: Path, suffix: str) -> Path:
    return base.with_name(base.name + suffix)


def least_pixels(scale: Scale, options: ResultOptions) -> int:
    """Map pixels that an area needs to be one."""
    # Less a hair, because 25000 / 4.0000001 is no reason to drop a region of exactly the least area.
    return math.ceil(options.min_area_um2 / scale.map_mpp**2 - 1e-6)


def _area_mm2(regions: Sequence[Region], scale: Scale) -> float:
    return sum(region.num_pixels for region in regions) * scale.map_mpp**2 / 1e6


def _tissue_mm2(overview: Overview, scale: Scale) -> float:
    return overview.tissue_pixels * scale.map_mpp**2 / 1e6


def annotation_features(
    by_class: Mapping[str, tuple[Colour, Sequence[Region]]], scale: Scale, options: ResultOptions
) -> Iterator[dict[str, Any]]:
    """GeoJSON features, in level-0 pixels from the origin of `options.annotation_frame`, of regions, which lie in map pixels."""
    origin = frame_origin_px(options.annotation_frame, scale.qupath_origin_px)
    for name, (colour, regions) in by_class.items():
        for region in regions:
            outline = simplified(region.polygon, options.simplify_um / scale.map_mpp)
            polygon = shapely.transform(outline, lambda points: points * scale.map_pixel)
            # Of the map's pixels, whatever the outline was simplified to.
            area_um2 = region.num_pixels * scale.map_mpp**2
            measurements = {"Area µm^2": area_um2, "Mean probability": region.mean_probability}
            yield annotation_feature(polygon, name, colour, measurements, origin)


def _rings(region: Region, factor: int) -> list[np.ndarray]:
    """Outlines in overview pixels, each ``(n, 2)``."""
    rings = (region.polygon.exterior, *region.polygon.interiors)
    return [np.asarray(ring.coords) / factor for ring in rings if ring.length >= SHORTEST_RING_PX * factor]
