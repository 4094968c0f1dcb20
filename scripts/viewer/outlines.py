"""Outlines of a map at any threshold, and their areas."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon, shape

from shared.inference.cohort.finished import MAP_SUFFIX
from shared.inference.outputs.map_file import MapFile
from shared.inference.outputs.polygons import Region, simplified, tumour_regions
from shared.inference.outputs.slide_results import ResultOptions, Scale, least_pixels
from shared.writers.ome_tiff import RowSource
from shared.wsi.annotations.frames import frame_origin_px

from .layers import Layers
from .tissue_share import share_inside, written_share

Rings = list[list[NDArray[np.float64]]]
TUMOUR = "Tumor"
_STRIP_AREA_PX = 2**24  # processed at once; takes 30 bytes per pixel


@dataclass
class Outlines:
    """Outlined areas of one slide, one entry of each list per area.

    Attributes:
        rings: each area's outline followed by its holes, ``(n, 2)`` points (x, y) in level-0 pixels.
        classes: class names.
        areas_um2: areas in square micrometres, counted in the map's pixels.
        means: mean probabilities.
        share: the part of the slide's tissue that lies inside, 0 to 1; None where it is not known.
    """

    rings: Rings = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    areas_um2: list[float] = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    share: float | None = None

    @property
    def area_mm2(self) -> float:
        return sum(self.areas_um2) / 1e6

    def add(self, outline: Polygon, region: Region, pixel: float, corner_px: tuple[float, float], pixel_um: float) -> None:
        """Add one area of tumour.

        Args:
            outline: outline in pixels of a map.
            region: the outlined region.
            pixel: level-0 pixels per pixel of the map.
            corner_px: (x, y) of the map's top-left corner, in level-0 pixels.
            pixel_um: side of a map pixel in micrometres.
        """
        self.rings.append([np.asarray(ring.coords) * pixel + corner_px for ring in shapely.get_rings(outline)])
        self.classes.append(TUMOUR)
        self.areas_um2.append(region.num_pixels * pixel_um**2)
        self.means.append(region.mean_probability)


def outlines_at(
    layers: Layers, method: int, name: str, threshold: float, is_wanted: Callable[[], bool] = lambda: True
) -> Outlines:
    """Outlines of tumour at a threshold, as `SlideMapper` would have written them.

    In multi-class maps the most likely class is outlined, whatever the threshold, so the outlines are read from their file.

    Args:
        layers: layers of the cohort.
        method: number of the method.
        name: name of the slide.
        threshold: least probability of tumour, in (0, 1].
        is_wanted: called before each area; once it returns False, the areas found so far are returned.

    Raises:
        ValueError: if the map cannot be read.
    """
    maps = layers.cohort.methods[method]
    if maps.class_names_of(name) is not None:
        return _written(layers, method, name)
    pixel, map_mpp, options = _options(layers, method, name, threshold)
    found, polygons = Outlines(), []
    with _source(layers, method, name) as (source, corner):
        least = least_pixels(_scale(layers, method, name), options)
        for region in tumour_regions(source, threshold, least, _strip_height(source)):
            if not is_wanted():
                return found
            outline = simplified(region.polygon, options.simplify_um / map_mpp)
            found.add(outline, region, pixel, (corner[0] * pixel, corner[1] * pixel), map_mpp)
            polygons.append(shapely.transform(region.polygon, lambda points: points + corner))
    found.share = _share(layers, method, name, threshold, polygons)
    return found


def draft_outlines(layers: Layers, method: int, name: str, threshold: float) -> Outlines:
    """Outlines of a reduced copy of the map's non-empty part: fast, but only approximate.

    Args:
        layers: layers of the cohort.
        method: number of the method; for multi-class maps the result is that of `outlines_at`.
        name: name of the slide.
        threshold: least probability of tumour, in (0, 1].

    Raises:
        ValueError: if the map cannot be read.
    """
    if layers.cohort.methods[method].class_names_of(name) is not None:
        return _written(layers, method, name)
    pixel, map_mpp, options = _options(layers, method, name, threshold)
    values, corner, step = layers.reduced_map(method, name)
    # A single pixel of the reduced map is dropped only if areas of its size are too small to outline.
    least = max(1, math.ceil(options.min_area_um2 / (map_mpp * step) ** 2))
    found, polygons = Outlines(), []
    for region in tumour_regions(KeptMap(values), threshold, least, len(values)):
        found.add(region.polygon, region, pixel * step, (corner[0] * pixel, corner[1] * pixel), map_mpp * step)
        polygons.append(shapely.transform(region.polygon, lambda points: points * step + corner))
    found.share = _share(layers, method, name, threshold, polygons)
    return found


def _share(layers: Layers, method: int, name: str, threshold: float, polygons: Sequence[Polygon]) -> float | None:
    """The part of the tissue inside: by the map's row where it was outlined like this, else counted in the tissue itself."""
    maps = layers.cohort.methods[method]
    if threshold == maps.outlining(name).threshold:
        return written_share(maps, name)
    return share_inside(layers.overview(method, name), polygons)


class KeptMap:
    """A map in memory, read by rows.

    Args:
        values: probabilities ``(H, W)``, uint8, 255 being 1.
    """

    def __init__(self, values: NDArray[np.uint8]) -> None:
        self._values = values

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self._values.shape[0], self._values.shape[1]

    def read_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Rows `start` to `stop`."""
        return self._values[start:stop]


@contextmanager
def _source(layers: Layers, method: int, name: str) -> Iterator[tuple[RowSource, tuple[int, int]]]:
    """The map, from memory unless it is too large to keep, and its top-left corner (x, y) in map pixels."""
    kept = layers.whole_map(method, name)
    if kept is not None:
        yield KeptMap(kept[0]), kept[1]
        return
    with MapFile(layers.cohort.methods[method].path(name, MAP_SUFFIX)) as file:
        yield file, (0, 0)


def _strip_height(source: RowSource) -> int | None:
    """Rows per strip: many for a map in memory, because fewer seams leave less to join; None for the default."""
    return max(1, _STRIP_AREA_PX // source.shape[1]) if isinstance(source, KeptMap) else None


def _options(layers: Layers, method: int, name: str, threshold: float) -> tuple[float, float, ResultOptions]:
    """Level-0 pixels per map pixel, micrometres per map pixel, and the options with which the map was outlined."""
    maps = layers.cohort.methods[method]
    made = maps.outlining(name)
    options = ResultOptions(None, threshold, made.min_area_um2, made.simplify_um, None)
    return layers.map_pixel(method, name), float(maps.rows[name]["map_mpp"]), options


def _scale(layers: Layers, method: int, name: str) -> Scale:
    row = layers.cohort.methods[method].rows[name]
    size = int(float(row["width_px"])), int(float(row["height_px"]))
    return Scale(size, float(row["mpp"]), layers.map_pixel(method, name), 1)


def _written(layers: Layers, method: int, name: str) -> Outlines:
    """The outlines in the slide's GeoJSON file."""
    path = layers.cohort.methods[method].path(name, ".geojson")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        origin = frame_origin_px(content.get("annotation_frame", "qupath"), layers.slide(name).qupath_origin_px)
        found = Outlines()
        for rings, properties in _features(content):
            found.rings.append([ring + origin for ring in rings])
            found.classes.append(str(properties["classification"]["name"]))
            measured = properties.get("measurements", {})
            found.areas_um2.append(float(measured.get("Area µm^2", "nan")))
            found.means.append(float(measured.get("Mean probability", "nan")))
        found.share = written_share(layers.cohort.methods[method], name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the outlines {path} cannot be read ({type(error).__name__}: {error})") from error
    return found


def _features(content: dict) -> Iterator[tuple[list[NDArray[np.float64]], dict]]:
    for feature in content["features"]:
        for polygon in shapely.get_parts(shape(feature["geometry"])):
            yield [np.asarray(ring.coords) for ring in shapely.get_rings(polygon)], feature["properties"]
