"""Validation of numbers from clients, with the bounds of slides and trainings."""

from __future__ import annotations

import math
from typing import Any

from ..refusal import Refusal

# Level-0 pixels; the largest slides have about 2**18 per side.
FARTHEST_PX = 2**31
LARGEST_AREA_PX = 1e12
# Micrometres per pixel, from an objective of 400x to one of 0.1x.
LEAST_MPP, MOST_MPP = 0.025, 100.0
MOST_EPOCHS = 10_000


def number(value: Any, name: str, least: float, most: float) -> float:
    """Check that a value is a number between two bounds, inclusive, and return it.

    Raises:
        Refusal: naming the number, the expected range and the value received.

    >>> number(80, "min_poly_area", 0, 1e12)
    80.0
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refusal(f"{name} must be a number, got {repr(value)[:80]}")
    if not least <= value <= most or math.isnan(value):
        raise Refusal(f"{name} must be {_between(least, most)}, got {repr(value)[:80]}")
    return float(value)


def whole_number(value: Any, name: str, least: int, most: int) -> int:
    """Check that a value is a whole number between two bounds, inclusive, and return it.

    Raises:
        Refusal: naming the number, the expected range and the value received.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Refusal(f"{name} must be a whole number {_between(least, most)}, got {repr(value)[:80]}")
    return value


def _between(least: float, most: float) -> str:
    return f"from {least:g} to {most:g}"
