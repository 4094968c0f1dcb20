"""Annotation files of ASAP, the format of the CAMELYON challenges."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from .annotation import Drawing, LeftOut
from .xml_points import number_of, points_of

# A spline is its points joined by straight lines, as in the masks that ASAP makes of it.
_AREAS = {"polygon", "spline", "rectangle"}


def read_asap(events: Iterator[tuple[str, Element]]) -> Iterator[Drawing | LeftOut]:
    """Annotations below ``<ASAP_Annotations>``.

    ``PartOfGroup`` is the class name (CAMELYON16: ``_0`` and ``_1`` tumour, ``_2`` an exclusion), ``None`` is no class. Points
    are sorted by their ``Order``. Of nested groups the innermost counts.

    Args:
        events: starts and ends of elements as of `iterparse`, behind the outermost start. Elements are emptied once read.
    """
    number = 0
    for event, element in events:
        if event != "end" or element.tag != "Annotation":
            continue
        number += 1
        yield _read(element, f"annotation {number} ({element.get('Name', '')!r})")
        element.clear()


def _read(element: Element, place: str) -> Drawing | LeftOut:
    kind = element.get("Type", "Polygon")
    if kind.lower() not in _AREAS:
        return LeftOut(place, kind)
    corners = element.findall("Coordinates/Coordinate")
    if all(corner.get("Order") for corner in corners):
        corners.sort(key=lambda corner: number_of(corner, "Order", place))
    group = element.get("PartOfGroup", "None")
    return Drawing([[points_of(corners, place)]], "" if group == "None" else group, group, place)
