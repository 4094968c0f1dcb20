"""Numbers in the attributes of XML elements."""

from __future__ import annotations

import math
from collections.abc import Iterable
from xml.etree.ElementTree import Element

import numpy as np

from .annotation import Ring


def points_of(elements: Iterable[Element], place: str) -> Ring:
    """The points ``(n, 2)`` in the attributes X and Y of some elements.

    Raises:
        ValueError: naming `place`, if there are none, or one is no finite number.
    """
    points = [[number_of(element, name, place) for name in ("X", "Y")] for element in elements]
    if not points:
        raise ValueError(f"{place} has no coordinates")
    return np.array(points, dtype=np.float64)


def number_of(element: Element, name: str, place: str) -> float:
    """One attribute; ASAP writes decimal commas on machines that are set so."""
    text = element.get(name)
    try:
        value = float((text or "").replace(",", "."))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{place} has a coordinate {name}={text!r}, expected a number")
    return value
