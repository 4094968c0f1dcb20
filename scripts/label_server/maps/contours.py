"""Outlines for viewers whose formats do not support holes, made from GeoJSON features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import shapely
from shapely.geometry import Polygon, box, shape
from shapely.geometry.base import BaseGeometry

from shared.inference.region_map import Box
from shared.wsi.annotations.annotation import polygons_of

Feature = dict[str, Any]


def cut_features(features: Iterable[Feature], region: Box | None, mpp: float | None = None) -> Iterator[Feature]:
    """The parts of annotations that lie in a region, each with its measurements.

    Args:
        features: GeoJSON features with polygons in level-0 pixels.
        region: region in level-0 pixels; None for everything.
        mpp: micrometres per level-0 pixel, for the areas of annotations that are cut; None omits these areas.
    """
    if region is None:
        yield from features
        return
    window = box(region[0], region[1], region[0] + region[2], region[1] + region[3])
    shapely.prepare(window)
    for feature in features:
        polygon = shape(feature["geometry"])
        if shapely.contains_properly(window, polygon) or shapely.covers(window, polygon):
            yield feature
            continue
        for part in polygons_of(shapely.intersection(polygon, window)):
            yield _with_polygon(feature, part, mpp)


def _with_polygon(feature: Feature, polygon: Polygon, mpp: float | None) -> Feature:
    properties = dict(feature["properties"])
    measurements = {name: value for name, value in properties.get("measurements", {}).items() if not name.startswith("Area")}
    if mpp is not None:
        measurements["Area µm^2"] = polygon.area * mpp**2
    return feature | {"geometry": polygon.__geo_interface__, "properties": properties | {"measurements": measurements}}


def moved_features(features: Iterable[Feature], shift_px: tuple[int, int]) -> Iterator[Feature]:
    """Polygon annotations, shifted by `shift_px` (x, y)."""
    if shift_px == (0, 0):
        yield from features
        return
    for feature in features:
        geometry = feature["geometry"]
        rings = [(np.asarray(ring) + shift_px).tolist() for ring in geometry["coordinates"]]
        yield feature | {"geometry": dict(geometry) | {"coordinates": rings}}


def contours_by_class(features: Iterable[Feature], min_area: float = 0.0) -> dict[str, list[list[list[int]]]]:
    """Outlines without holes, which together cover the area of the annotations to within half a pixel.

    Args:
        features: GeoJSON features with polygons in level-0 pixels.
        min_area: least area of a polygon in square pixels; pieces of a cut polygon may be smaller.

    Returns:
        class -> its outlines, lists of integer ``[x, y]`` points, not closed.
    """
    found: dict[str, list[list[list[int]]]] = {}
    for feature in features:
        polygon = shape(feature["geometry"])
        outlines = found.setdefault(class_name(feature), [])
        if polygon.area >= min_area:
            outlines += [ring for piece in without_holes(polygon) if len(ring := _ring(piece)) >= 3]
    return found


def without_holes(polygon: Polygon) -> Iterator[Polygon]:
    """Cut a polygon into pieces without holes, by vertical cuts through the middles of its holes."""
    waiting: list[BaseGeometry] = [polygon]
    while waiting:
        piece = waiting.pop()
        if not piece.interiors:
            yield piece
            continue
        # Cutting at the median hole halves their number, so the depth is the logarithm of it.
        middles = sorted((ring.bounds[0] + ring.bounds[2]) / 2 for ring in piece.interiors)
        left, top, right, bottom = piece.bounds
        cut = middles[len(middles) // 2]
        for half in (box(left - 1, top - 1, cut, bottom + 1), box(cut, top - 1, right + 1, bottom + 1)):
            waiting += polygons_of(shapely.intersection(piece, half))


def class_name(feature: Mapping[str, Any]) -> str:
    return str(feature["properties"]["classification"]["name"])


def class_colours(features: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, int, int]]:
    """Class -> (red, green, blue), for the classes that occur."""
    classifications = [feature["properties"]["classification"] for feature in features]
    return {str(item["name"]): tuple(item["color"]) for item in classifications}


def _ring(polygon: Polygon) -> list[list[int]]:
    """The outline in integer pixels, without repeated points."""
    ring: list[list[int]] = []
    for x, y in polygon.exterior.coords:
        point = [round(x), round(y)]
        if not ring or ring[-1] != point:
            ring.append(point)
    return ring[:-1] if len(ring) > 1 and ring[0] == ring[-1] else ring
