"""Outlines of a map at any threshold, and their areas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import shape

from shared.inference.outputs.map_file import MapFile
from shared.inference.outputs.polygons import simplified, tumour_regions
from shared.inference.outputs.slide_results import ResultOptions, Scale, least_pixels
from shared.wsi.annotations.frames import frame_origin_px

from .layers import Layers

Rings = list[list[NDArray[np.float64]]]
TUMOUR = "Tumor"


@dataclass
class Outlines:
    """Outlined areas of one slide, one entry of each list per area.

    Attributes:
        rings: of each area its outline and then its holes, ``(n, 2)`` points in level-0 pixels.
        classes: its class.
        areas_um2: counted in the map's pixels.
        means: mean probability.
    """

    rings: Rings = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    areas_um2: list[float] = field(default_factory=list)
    means: list[float] = field(default_factory=list)

    @property
    def area_mm2(self) -> float:
        return sum(self.areas_um2) / 1e6


def outlines_at(layers: Layers, method: int, name: str, threshold: float) -> Outlines:
    """Outlines of tumour from a threshold on, as `SlideMapper` would have written them.

    Of maps of several classes the likeliest class is outlined, whatever the threshold: those that were written are read.

    Args:
        layers: of the cohort.
        method: number of the maps.
        name: of the slide.
        threshold: in (0, 1].

    Raises:
        ValueError: if the map cannot be read.
    """
    maps = layers.cohort.methods[method]
    if maps.class_names is not None:
        return _written(layers, method, name)
    row, settings = maps.rows[name], maps.settings
    map_mpp, pixel = float(row["map_mpp"]), layers.map_pixel(method, name)
    scale = Scale((int(float(row["width_px"])), int(float(row["height_px"]))), float(row["mpp"]), pixel, 1)
    options = ResultOptions(None, threshold, float(settings["min_area_um2"]), float(settings["simplify_um"]), None)
    found = Outlines()
    with MapFile(maps.path(name, ".ome.tif")) as source:
        for region in tumour_regions(source, threshold, least_pixels(scale, options)):
            outline = simplified(region.polygon, options.simplify_um / map_mpp)
            found.rings.append([np.asarray(ring.coords) * pixel for ring in shapely.get_rings(outline)])
            found.classes.append(TUMOUR)
            found.areas_um2.append(region.num_pixels * map_mpp**2)
            found.means.append(region.mean_probability)
    return found


def _written(layers: Layers, method: int, name: str) -> Outlines:
    """Those of the slide's file."""
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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the outlines {path} cannot be read ({type(error).__name__}: {error})") from error
    return found


def _features(content: dict) -> Iterator[tuple[list[NDArray[np.float64]], dict]]:
    for feature in content["features"]:
        for polygon in shapely.get_parts(shape(feature["geometry"])):
            yield [np.asarray(ring.coords) for ring in shapely.get_rings(polygon)], feature["properties"]
