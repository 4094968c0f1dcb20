"""Annotation files of Aperio ImageScope, the format of the BACH challenge."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

import numpy as np

from .annotation import Drawing, LeftOut, Ring
from .xml_points import points_of

# Others are arrows, rulers and the like.
_AREAS = {"0": "polygon", "1": "rectangle", "2": "ellipse"}
# Its area is 0.04 % below the ellipse's.
_ELLIPSE_POINTS = 128


def read_imagescope(events: Iterator[tuple[str, Element]]) -> Iterator[Drawing | LeftOut]:
    """Regions below ``<Annotations>``; each ``<Annotation>`` is a layer.

    A region's class is the first of these that is not empty: the value of one of its own attributes (BACH names its classes
    there), its ``Text``, the layer's ``Name``, the value of an attribute of the layer, the name of an attribute of the layer
    other than ``Description``, which every layer has. The layer's class is the parent of one that is the region's own. A region
    with ``NegativeROA="1"`` is taken away from its layer.

    Args:
        events: starts and ends of elements as of `iterparse`, after the outermost start. Elements are emptied once read.
    """
    layer = 0
    regions: list[Drawing | LeftOut] = []
    for event, element in events:
        if event == "start" and element.tag == "Annotation":
            layer += 1
            regions = []
        elif event == "end" and element.tag == "Region":
            regions.append(_read(element, layer, len(regions) + 1))
            element.clear()
        elif event == "end" and element.tag == "Annotation":
            yield from _named(regions, element)
            element.clear()


def _read(element: Element, layer: int, number: int) -> Drawing | LeftOut:
    place = f"annotation {layer}, region {number}"
    code = element.get("Type") or "0"
    kind = _AREAS.get(code, code.lower())
    if kind not in _AREAS.values():
        return LeftOut(place, f"type {code}")
    outline = _outline(points_of(element.findall("Vertices/Vertex"), place), kind)
    name = _first([*_attributes(element, "Value"), element.get("Text")])
    is_negative = element.get("NegativeROA", "0").strip().lower() in ("1", "true")
    return Drawing([[outline]], name, "", place, is_negative, layer)


def _outline(points: Ring, kind: str) -> Ring:
    """The type alone does not say how a region is stored: rectangles and ellipses come as two or four corners of their bounding
    box, but a layer's type also stands at freehand outlines of thousands of points."""
    if kind == "polygon" or len(points) not in ((2,) if kind == "rectangle" else (2, 4)):
        return points
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    if kind == "rectangle":
        return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    angles = np.linspace(0, 2 * np.pi, _ELLIPSE_POINTS, endpoint=False)
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.array([left + right, top + bottom]) / 2 + unit * np.array([right - left, bottom - top]) / 2


def _named(regions: list[Drawing | LeftOut], element: Element) -> Iterator[Drawing | LeftOut]:
    """The regions of a layer, with the layer's class if they have none."""
    titles = [name for name in _attributes(element, "Name") if name.strip().lower() != "description"]
    layer_class = _first([element.get("Name"), *_attributes(element, "Value"), *titles])
    group = _first([element.get("Name"), element.get("Id")])
    for region in regions:
        if isinstance(region, LeftOut):
            yield region
        else:
            name = region.class_name or layer_class
            parents = (layer_class,) if layer_class not in ("", name) else ()
            yield Drawing(region.polygons, name, group, region.place, region.is_negative, region.layer, parents)


def _attributes(element: Element, key: str) -> list[str]:
    return [attribute.get(key, "") for attribute in element.findall("Attributes/Attribute")]


def _first(names: list[str | None]) -> str:
    """The first name that is more than blanks."""
    return next((name.strip() for name in names if name and name.strip()), "")
