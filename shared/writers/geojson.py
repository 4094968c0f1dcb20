"""Polygons of tissue classes as GeoJSON in the form that QuPath reads by drag and drop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from shapely.geometry import Polygon

from .atomic import atomic_path
from .palette import TUMOUR_COLOUR, Colour

TUMOUR_CLASS = "Tumor"  # QuPath's own name of the class


def annotation_feature(polygon: Polygon, class_name: str, colour: Colour, measurements: Mapping[str, float]) -> dict[str, Any]:
    """One annotation object of QuPath.

    Args:
        polygon: outline and holes as (x, y) in level-0 pixels.
        class_name: of QuPath's classification.
        colour: of that class.
        measurements: what QuPath lists beside the annotation, units in the names.
    """
    return {
        "type": "Feature",
        "geometry": {
            "type": "Polygon",
            "coordinates": [_ring(ring.coords) for ring in (polygon.exterior, *polygon.interiors)],
        },
        "properties": {
            "objectType": "annotation",
            "classification": {"name": class_name, "color": list(colour)},
            "isLocked": False,
            "measurements": dict(measurements),
        },
    }


def tumour_feature(polygon: Polygon, measurements: Mapping[str, float]) -> dict[str, Any]:
    """`annotation_feature` of QuPath's own class for tumour."""
    return annotation_feature(polygon, TUMOUR_CLASS, TUMOUR_COLOUR, measurements)


def write_geojson(path: str | Path, features: Iterable[Mapping[str, Any]]) -> None:
    """Write a FeatureCollection, a feature a line, without holding its text in memory."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(b'{"type":"FeatureCollection","features":[')
        for index, feature in enumerate(features):
            file.write(b",\n" if index else b"\n")
            file.write(orjson.dumps(feature, option=orjson.OPT_SERIALIZE_NUMPY))
        file.write(b"\n]}\n")


def _ring(coordinates: Any) -> np.ndarray:
    """Ring as ``(n, 2)``; whole numbers are written as such, which halves the file."""
    points = np.asarray(coordinates, dtype=np.float64)
    whole = points.astype(np.int64)
    return np.ascontiguousarray(whole if np.array_equal(whole, points) else points)
