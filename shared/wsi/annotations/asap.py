"""Annotation files of ASAP, the format of the CAMELYON challenges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from xml.etree.ElementTree import Element

from .annotation import Drawing, LeftOut
from .xml_points import number_of, points_of

# A spline is its points joined by straight lines, as in the masks that ASAP makes of it.
_AREAS = {"polygon", "spline", "rectangle"}
_NO_GROUP = "None"


def read_asap(events: Iterator[tuple[str, Element]]) -> Iterator[Drawing | LeftOut]:
    """Annotations below ``<ASAP_Annotations>``.

    ``PartOfGroup`` is the class name (CAMELYON16: ``_0`` and ``_1`` tumour, ``_2`` an exclusion), ``None`` is no class. Points
    are sorted by their ``Order``. The groups that a group is part of are the annotation's parents.

    Args:
        events: starts and ends of elements as of `iterparse`, after the outermost start. Elements are emptied once read.

    Raises:
        ValueError: naming the annotation, for coordinates that are no numbers; naming the group, for one that is part of
            itself.
    """
    found: list[Drawing | LeftOut] = []
    # The groups come after the annotations.
    parent_of: dict[str, str] = {}
    for event, element in events:
        if event != "end":
            continue
        if element.tag == "Annotation":
            number = len(found) + 1
            found.append(_read(element, f"annotation {number} ({element.get('Name', '')!r})"))
            element.clear()
        elif element.tag == "Group":
            parent_of[element.get("Name", "")] = element.get("PartOfGroup", _NO_GROUP)
            element.clear()
    for drawing in found:
        if isinstance(drawing, Drawing):
            yield replace(drawing, parents=_parents(drawing.group, parent_of))
        else:
            yield drawing


def _read(element: Element, place: str) -> Drawing | LeftOut:
    kind = element.get("Type", "Polygon")
    if kind.lower() not in _AREAS:
        return LeftOut(place, kind)
    corners = element.findall("Coordinates/Coordinate")
    if all(corner.get("Order") for corner in corners):
        corners.sort(key=lambda corner: number_of(corner, "Order", place))
    group = element.get("PartOfGroup", _NO_GROUP)
    return Drawing([[points_of(corners, place)]], "" if group == _NO_GROUP else group, group, place)


def _parents(group: str, parent_of: Mapping[str, str]) -> tuple[str, ...]:
    """The groups above a group, the nearest first."""
    parents: list[str] = []
    while (parent := parent_of.get(group, _NO_GROUP)) != _NO_GROUP:
        if parent in parents:
            raise ValueError(f"the group {parent!r} is part of itself: correct PartOfGroup in <AnnotationGroups>")
        parents.append(parent)
        group = parent
    return tuple(parents)
