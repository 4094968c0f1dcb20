"""Annotation files written again with one name for each class, and without what is taken away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import shapely
from shapely.geometry.base import BaseGeometry

from ...writers.geojson import annotation_feature, write_geojson
from ...writers.palette import class_colour
from ...wsi.annotations.annotation import Annotation
from ...wsi.annotations.drawing_order import drawn_areas, visible_areas
from ...wsi.annotations.frames import QUPATH

_BACKGROUND_COLOUR = (128, 128, 128)


def class_areas(annotations: Sequence[Annotation], indices: Sequence[int | None]) -> list[tuple[BaseGeometry, int]]:
    """The area of each annotation less what is taken away from its layer, or from the whole slide, and its class index.

    Args:
        annotations: of one slide.
        indices: class index of each; None where it is left out, as exclusions are.

    Returns:
        Areas in the order in which they are drawn, see `drawn_areas`, later ones on top; none is empty.
    """
    taken = [annotation.polygon for annotation in annotations if annotation.is_exclusion and annotation.layer is None]
    taken_away = shapely.union_all(taken)
    areas = drawn_areas(annotations, indices)
    left = ((shapely.difference(area, taken_away) if taken else area, index) for area, index in areas)
    return [(area, index) for area, index in left if area.area > 0]


def without_background(areas: Sequence[tuple[BaseGeometry, int]]) -> list[tuple[BaseGeometry, int]]:
    """The visible parts of areas, leaving out those of class 0: the mask stays, nothing drawn is background, and areas of
    different classes do not overlap.

    Args:
        areas: in order, later ones on top; see `class_areas`.
    """
    return [(area, index) for area, index in visible_areas(areas) if index != 0]


def write_class_annotations(
    target: str | Path,
    areas: Iterable[tuple[BaseGeometry, int]],
    class_names: Sequence[str],
    qupath_origin_px: tuple[int, int] = (0, 0),
) -> None:
    """Write areas as QuPath's GeoJSON, in QuPath's frame, a feature for each polygon.

    Args:
        target: ``.geojson`` to write.
        areas: in level-0 pixels, with their class indices; those of different classes do not overlap, see `visible_areas`.
        class_names: the class of each index.
        qupath_origin_px: of the slide, `Slide.qupath_origin_px`.
    """
    features = (
        annotation_feature(
            polygon, class_names[index], class_colour(index) if index else _BACKGROUND_COLOUR, {}, qupath_origin_px
        )
        for area, index in areas
        for polygon in shapely.get_parts(area)
        if polygon.geom_type == "Polygon" and polygon.area > 0
    )
    write_geojson(target, features, QUPATH)
