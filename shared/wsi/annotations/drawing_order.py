"""The drawing order of annotated areas that overlap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from .annotation import Annotation, polygons_of


def drawn_areas(annotations: Sequence[Annotation], indices: Sequence[int | None]) -> list[tuple[Polygon, int]]:
    """The areas of annotations with their class indices in the order in which they are drawn: the larger first.

    So what lies inside wins over what surrounds it, and of two areas that overlap in part the smaller wins, whichever stands
    first in the file: QuPath does not sort. Of areas of one size the later is on top. The polygons of an annotation that has
    several are ordered one by one, each by its area without its holes.

    Args:
        annotations: of one slide. Those of an ImageScope layer lose what is excluded in it (NegativeROA).
        indices: class index of each; None where it is not drawn. Exclusions are not, whatever their index.

    Returns:
        Polygons in level-0 pixels, and the class index of each.
    """
    excluded: dict[int, list[BaseGeometry]] = defaultdict(list)
    for annotation in annotations:
        if annotation.is_exclusion and annotation.layer is not None:
            excluded[annotation.layer].append(annotation.polygon)
    holes = {layer: shapely.union_all(polygons) for layer, polygons in excluded.items()}
    areas = []
    for annotation, index in zip(annotations, indices, strict=True):
        if index is None or annotation.is_exclusion:
            continue
        hole = None if annotation.layer is None else holes.get(annotation.layer)
        shape = annotation.polygon if hole is None else shapely.difference(annotation.polygon, hole)
        areas += [(polygon, index) for polygon in polygons_of(shape)]
    # Rounded: one outline that was drawn in two directions has two areas, which differ in the last digits.
    return sorted(areas, key=lambda area: -round(area[0].area, 3))


def visible_areas(areas: Sequence[tuple[BaseGeometry, int]]) -> list[tuple[BaseGeometry, int]]:
    """Areas less what lies on top of them and is of another class, so that their order no longer matters.

    Args:
        areas: with class indices, later ones on top; see `drawn_areas`.

    Returns:
        What is left of each, in the same order; none is empty.
    """
    tree = shapely.STRtree([area for area, _ in areas])
    kept = []
    for number, (area, index) in enumerate(areas):
        touching = tree.query(area, predicate="intersects").tolist()
        above = [areas[other][0] for other in touching if other > number and areas[other][1] != index]
        rest = shapely.difference(area, shapely.union_all(above)) if above else area
        if rest.area > 0:
            kept.append((rest, index))
    return kept
