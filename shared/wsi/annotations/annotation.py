"""Annotations of an annotation file, as drawn and as valid areas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from .even_odd import even_odd_area

# Points ``(n, 2)`` as (x, y), closed or not.
Ring = NDArray[np.float64]
# With its holes. The outlines that people and pixel classifiers leave have some 100 000 at most.
MAX_OUTLINE_POINTS = 10_000_000


@dataclass(frozen=True)
class Annotation:
    """One annotated area of a slide.

    Args:
        polygon: valid and not empty, (x, y) in level-0 pixels.
        class_name: as the file has it, without blanks around it; empty where it names none.
        is_exclusion: the area is taken away, not added.
        group: ASAP's group, ImageScope's layer or QuPath's name of the object, for messages.
        place: its place in the file, for messages.
        layer: of an ImageScope file, from 1: what is excluded there is excluded from that layer only. None for files without
            layers, and for exclusions by name, which count for the whole slide.
        parents: names of the classes above its own, the nearest first: the groups that ASAP's group belongs to, ``Tumor`` of
            QuPath's ``Tumor: Positive``. What holds for a parent holds for it too.
    """

    polygon: Polygon | MultiPolygon
    class_name: str
    is_exclusion: bool
    group: str
    place: str
    layer: int | None = None
    parents: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Its class and those above it, the nearest first."""
        return (self.class_name, *self.parents)

    @property
    def base_class(self) -> str:
        """Its class without what QuPath derives from it: ``Tumor`` of ``Tumor: Positive``. Not the group that ASAP's is part
        of, which may hold groups of several classes."""
        return self.class_name.partition(":")[0].strip()


@dataclass(frozen=True)
class Drawing:
    """An annotation as it was drawn: polygons, each an outline and then its holes."""

    polygons: Sequence[Sequence[Ring]]
    class_name: str
    group: str
    place: str
    is_negative: bool = False
    layer: int | None = None
    parents: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """Something in a file that is no area."""

    place: str
    what: str


def area_of(polygons: Iterable[Sequence[Ring]]) -> Polygon | MultiPolygon | None:
    """The area that outlines with holes enclose, valid; None if it is zero.

    An outline that crosses itself encloses what the even-odd rule says, as in OpenCV's and GDAL's masks, QuPath, and so in the
    published masks: both lobes of a figure of eight, but not what it goes around twice. Areas of several outlines are joined.

    Raises:
        ValueError: for an outline of too many points or self-crossings, see `even_odd_area`.
    """
    parts: list[BaseGeometry] = []
    for rings in polygons:
        shell, *holes = (_open_ring(ring) for ring in rings)
        if sum(map(len, rings)) > MAX_OUTLINE_POINTS:
            raise ValueError(f"an outline has more than {MAX_OUTLINE_POINTS:,} points: simplify it")
        if len(shell) < 3:
            continue
        polygon = Polygon(shell, [hole for hole in holes if len(hole) >= 3])
        parts.append(polygon if polygon.is_valid else even_odd_area(polygon))
    if not parts:
        return None
    # What even_odd_area gives may be thousands of parts, which need no union: they do not overlap.
    kept = polygons_of(parts[0] if len(parts) == 1 else shapely.union_all(parts))
    if not kept:
        return None
    return kept[0] if len(kept) == 1 else MultiPolygon(kept)


def polygons_of(geometry: BaseGeometry) -> list[Polygon]:
    """The polygons with an area; points and lines, left over where an outline touches itself, are dropped."""
    return [part for part in shapely.get_parts(shapely.get_parts(geometry)) if isinstance(part, Polygon) and part.area > 0]


def _open_ring(ring: Ring) -> Ring:
    """Without the points at its end that repeat the first."""
    last = len(ring)
    while last > 1 and np.array_equal(ring[last - 1], ring[0]):
        last -= 1
    return ring[:last]
