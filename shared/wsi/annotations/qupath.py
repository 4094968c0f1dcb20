"""Annotation files of QuPath: GeoJSON, and the list of features that older versions write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .annotation import Drawing, LeftOut, Ring
from .frames import FRAME_MEMBER, check_frame

# Of nested collections of geometries.
_MAX_DEPTH = 8


def read_qupath(content: Any) -> Iterator[Drawing | LeftOut]:
    """Annotations of a FeatureCollection, a list of features or one feature.

    The class is the classification's name; ``A: B`` for one that is derived, whose parent is ``A``. Cells, tiles and other
    objects that are no annotations are left out; what does not say what it is counts as one.

    Args:
        content: the parsed file.

    Raises:
        ValueError: naming the feature that has no coordinates, or if there are no features.
    """
    if isinstance(content, dict):
        content = content.get("features") if content.get("type") == "FeatureCollection" else [content]
    if not isinstance(content, list):
        raise ValueError("expected a GeoJSON FeatureCollection, a list of features or a feature, as QuPath writes them")
    for number, feature in enumerate(content, start=1):
        place = f"feature {number}"
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            found = feature.get("type") if isinstance(feature, dict) else feature
            raise ValueError(f"{place} is not a GeoJSON Feature: its type is {str(found)[:40]!r}")
        yield _read(feature, place)


def stated_frame(content: Any) -> str | None:
    """The frame that a FeatureCollection names itself, see `shared.wsi.annotations.frames`; None if it names none.

    Raises:
        ValueError: if there is no such frame.
    """
    stated = content.get(FRAME_MEMBER) if isinstance(content, dict) else None
    return None if stated is None else check_frame(stated)


def _read(feature: dict[str, Any], place: str) -> Drawing | LeftOut:
    properties = _mapping(feature.get("properties"))
    name = str(properties.get("name") or "")
    place = f"{place} ({name!r})" if name else place
    # Older versions have the object's type in the id: PathAnnotationObject, PathCellObject, ...
    identity = str(feature.get("id", ""))
    of_id = identity[len("Path") : -len("Object")] if identity.startswith("Path") and identity.endswith("Object") else ""
    kind = str(properties.get("objectType") or properties.get("object_type") or of_id or "annotation").lower()
    if kind != "annotation":
        return LeftOut(place, kind)
    geometry = _mapping(feature.get("geometry"))
    polygons = _polygons(geometry, place)
    if not polygons:
        return LeftOut(place, str(geometry["type"]))
    names = _class_names(properties.get("classification"))
    class_name, *parents = (": ".join(names[:length]) for length in range(len(names), 0, -1))
    return Drawing(polygons, class_name, name, place, parents=tuple(parents))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _polygons(geometry: dict[str, Any], place: str, depth: int = 0) -> list[list[Ring]]:
    """Outlines with their holes; none for points and lines."""
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        if depth == _MAX_DEPTH:
            raise ValueError(f"{place} has more than {_MAX_DEPTH} nested collections of geometries")
        parts = geometry.get("geometries") or []
        return [polygon for part in parts for polygon in _polygons(_mapping(part), place, depth + 1)]
    if kind in ("Point", "MultiPoint", "LineString", "MultiLineString"):
        return []
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"{place} has no coordinates: its geometry is of type {kind!r}, expected Polygon or MultiPolygon")
    coordinates: Any = geometry.get("coordinates") or []
    try:
        polygons = [[_ring(ring) for ring in polygon] for polygon in ([coordinates] if kind == "Polygon" else coordinates)]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{place} has coordinates that are not points (x, y): {error}") from error
    if not polygons or not all(polygons):
        raise ValueError(f"{place} has no coordinates")
    return polygons


def _ring(coordinates: Any) -> Ring:
    """A ring ``(n, 2)``; a third coordinate is dropped."""
    points = np.array([point[:2] for point in coordinates], dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"an outline of shape {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("a number that is not finite")
    return points


def _class_names(classification: Any) -> list[str]:
    """The class and, after it, what it is derived with; one empty name for no class."""
    if isinstance(classification, dict):
        names = classification.get("names")
        if isinstance(names, list) and names:
            return [str(name) for name in names]
        classification = classification.get("name")
    return str(classification or "").split(": ")
