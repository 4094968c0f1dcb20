"""The area inside outlines that cross themselves, by the even-odd rule."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

# Time and memory grow with the crossings: a scribble of 500 random points has 40 000 and takes a second.
MAX_CROSSINGS = 200_000
# Segments times faces, or segments, looked at together: 100 MB.
_PAIRS_TOGETHER = 2_000_000


def even_odd_area(polygon: Polygon) -> BaseGeometry:
    """The parts of the plane that the rings of a polygon go around an odd number of times.

    The rings are cut where they cross, and of the faces between the pieces those are kept from which a ray crosses the rings an
    odd number of times: what `shapely.make_valid` gives, in a time that grows with the number of crossings, not with its square.

    Args:
        polygon: not valid; its rings may cross and touch themselves and each other.

    Returns:
        A valid polygon or several that do not overlap; empty where the rings enclose nothing.

    Raises:
        ValueError: if the rings cross more than `MAX_CROSSINGS` times.
    """
    segments = _segments(polygon)
    _check_crossings(segments)
    lines = shapely.union_all(shapely.linestrings(segments))
    faces = shapely.get_parts(shapely.polygonize([lines]))
    kept = faces[_is_odd(shapely.get_coordinates(shapely.point_on_surface(faces)), segments)]
    return shapely.coverage_union_all(kept)


def _segments(polygon: Polygon) -> NDArray[np.float64]:
    """The sides of all rings, ``(n, 2, 2)``: start and end, each (x, y)."""
    rings = [np.asarray(ring.coords)[:, :2] for ring in (polygon.exterior, *polygon.interiors)]
    segments = np.concatenate([np.stack([ring[:-1], ring[1:]], axis=1) for ring in rings])
    return segments[(segments[:, 0] != segments[:, 1]).any(axis=1)]


def _check_crossings(segments: NDArray[np.float64]) -> None:
    """Count the pairs of segments that meet, and stop as soon as there are too many."""
    lines = shapely.linestrings(segments)
    tree = shapely.STRtree(lines)
    step = max(1, _PAIRS_TOGETHER // len(lines))
    # Every segment meets itself and its two neighbours, and each pair is found twice.
    most = 2 * MAX_CROSSINGS + 3 * len(lines)
    found = 0
    for start in range(0, len(lines), step):
        found += tree.query(lines[start : start + step], predicate="intersects").shape[1]
        if found > most:
            raise ValueError(
                f"an outline of {len(segments):,} points crosses itself more than {MAX_CROSSINGS:,} times: draw it again, or "
                "delete it"
            )


def _is_odd(points: NDArray[np.float64], segments: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a ray from each point ``(n, 2)`` to the right crosses an odd number of segments."""
    (x0, y0), (x1, y1) = segments[:, 0].T, segments[:, 1].T
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (x1 - x0) / (y1 - y0)
    odd = np.zeros(len(points), dtype=bool)
    step = max(1, _PAIRS_TOGETHER // len(segments))
    for start in range(0, len(points), step):
        x, y = points[start : start + step, :1], points[start : start + step, 1:]
        with np.errstate(invalid="ignore"):
            crosses = ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * slope)
        odd[start : start + step] = crosses.sum(axis=1) % 2 == 1
    return odd
