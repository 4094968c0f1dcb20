"""Annotation files written again with one name for each class, and without what is taken away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import shapely
from shapely.geometry.base import BaseGeometry

from ..writers import annotation_feature, class_colour, write_geojson
from ..wsi import Annotation

_BACKGROUND_COLOUR = (128, 128, 128)


def class_areas(annotations: Sequence[Annotation], indices: Sequence[int | None]) -> list[tuple[BaseGeometry, int]]:
    """The area of each annotation less what is taken away from its layer, or from the whole slide, and its class index.

    Args:
        annotations: of one slide, in the order of the file, which decides where areas overlap.
        indices: class index of each; None where it is left out, as exclusions are.

    Returns:
        Areas in the same order; none is empty.
    """
    areas = []
    for annotation, index in zip(annotations, indices, strict=True):
        if index is None or annotation.is_exclusion:
            continue
        taken = [other.polygon for other in annotations if other.is_exclusion and other.layer in (None, annotation.layer)]
        area = shapely.difference(annotation.polygon, shapely.union_all(taken)) if taken else annotation.polygon
        if area.area > 0:
            areas.append((area, index))
    return areas


def without_background(areas: Sequence[tuple[BaseGeometry, int]]) -> list[tuple[BaseGeometry, int]]:
    """Areas of class 0 cut out of those that lie below them, and left out: the mask stays, and nothing drawn is background.

    Args:
        areas: in order, later ones on top; see `class_areas`.
    """
    kept = []
    above: BaseGeometry = shapely.Polygon()
    for area, index in reversed(areas):
        if index == 0:
            above = shapely.union(above, area)
            continue
        rest = shapely.difference(area, above)
        if rest.area > 0:
            kept.append((rest, index))
    return kept[::-1]


def write_class_annotations(target: str | Path, areas: Iterable[tuple[BaseGeometry, int]], class_names: Sequence[str]) -> None:
    """Write areas as QuPath's GeoJSON, a feature for each polygon.

    Args:
        target: ``.geojson`` to write.
        areas: with their class indices, see `class_areas`.
        class_names: the class of each index.
    """
    write_geojson(
        target,
        (
            annotation_feature(polygon, class_names[index], class_colour(index) if index else _BACKGROUND_COLOUR, {})
            for area, index in areas
            for polygon in shapely.get_parts(area)
            if polygon.geom_type == "Polygon" and polygon.area > 0
        ),
    )
