"""Types of numeric options: what lies outside an option's range is refused before anything is loaded or written."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Callable


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """A type for `argparse`: whole numbers from `least`, up to and including `most` where there is one.

    >>> whole_number(1)("3")
    3
    """
    expected = f"a whole number from {least}{'' if most is None else f' to {most}'}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ArgumentTypeError(f"expected {expected}, found {text!r}") from None
        if value < least or (most is not None and value > most):
            raise ArgumentTypeError(f"expected {expected}, found {value}")
        return value

    return parse


def number(least: float = -math.inf, most: float = math.inf) -> Callable[[str], float]:
    """A type for `argparse`: finite numbers from `least` to `most`.

    >>> number(0, 1)("0.25")
    0.25
    """
    bounds = (f" from {least:g}" if least > -math.inf else "") + (f" to {most:g}" if most < math.inf else "")
    return _finite(f"a {'' if bounds else 'finite '}number{bounds}", lambda value: least <= value <= most)


def number_above(bound: float, what: str = "a number") -> Callable[[str], float]:
    """A type for `argparse`: finite numbers above `bound`; `what` they are is said in the error."""
    return _finite(f"{what} above {bound:g}", lambda value: value > bound)


def _finite(expected: str, is_allowed: Callable[[float], bool]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ArgumentTypeError(f"expected {expected}, found {text!r}") from None
        if not math.isfinite(value) or not is_allowed(value):
            raise ArgumentTypeError(f"expected {expected}, found {value:g}")
        return value

    return parse


COUNT = whole_number(1)
COUNT_FROM_0 = whole_number(0)
SEED = whole_number(0)
PORT = whole_number(0, 65535)
SHARE = number(0, 1)
PIXEL_SIZE = number_above(0, "micrometres per pixel")
