"""Polygons of tissue classes as GeoJSON in the form that QuPath reads by drag and drop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from shapely.geometry import Polygon

from ..wsi.annotations.frames import FRAME_MEMBER, check_frame
from .atomic import atomic_path
from .palette import Colour

TUMOUR_CLASS = "Tumor"  # QuPath's own name of the class


def annotation_feature(
    polygon: Polygon,
    class_name: str,
    colour: Colour,
    measurements: Mapping[str, float],
    origin_px: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """One annotation object of QuPath.

    Args:
        polygon: outline and holes as (x, y) in level-0 pixels.
        class_name: of QuPath's classification.
        colour: of that class.
        measurements: what QuPath lists with the annotation, units in the names.
        origin_px: (x, y) in level-0 pixels of the frame in which the annotation is written, see `frame_origin_px`.
    """
    return {
        "type": "Feature",
        "geometry": {
            "type": "Polygon",
            "coordinates": [_ring(ring.coords, origin_px) for ring in (polygon.exterior, *polygon.interiors)],
        },
        "properties": {
            "objectType": "annotation",
            "classification": {"name": class_name, "color": list(colour)},
            "isLocked": False,
            "measurements": dict(measurements),
        },
    }


def write_geojson(path: str | Path, features: Iterable[Mapping[str, Any]], frame: str | None = None) -> None:
    """Write a FeatureCollection, one feature per line, without holding its text in memory.

    Args:
        path: ``.geojson`` to write.
        features: see `annotation_feature`, with the origin of `frame`.
        frame: of the coordinates, one of `ANNOTATION_FRAMES`, which the file then names; None: it names none.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        stated = "" if frame is None else f'"{FRAME_MEMBER}":"{check_frame(frame)}",'
        file.write(f'{{"type":"FeatureCollection",{stated}"features":['.encode())
        for index, feature in enumerate(features):
            file.write(b",\n" if index else b"\n")
            file.write(orjson.dumps(feature, option=orjson.OPT_SERIALIZE_NUMPY))
        file.write(b"\n]}\n")


def _ring(coordinates: Any, origin_px: tuple[int, int]) -> np.ndarray:
    """Ring as ``(n, 2)``; whole numbers are written as such, which halves the file."""
    points = np.asarray(coordinates, dtype=np.float64) - origin_px
    whole = points.astype(np.int64)
    return np.ascontiguousarray(whole if np.array_equal(whole, points) else points)
