"""The continuation of an image beyond its border."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mirrored_indices(start: int, stop: int, length: int) -> NDArray[np.int64]:
    """Which pixels of an axis are at ``start`` to ``stop`` (exclusive) where the axis is mirrored at both ends.

    The outermost pixels are not repeated, as in numpy's mode ``"reflect"``; the mirroring continues as long as is needed.

    Args:
        start: may be negative.
        stop: may lie beyond `length`.
        length: of the axis in pixels, at least 1.

    Returns:
        ``(stop - start,)``, each in ``0 .. length - 1``.

    >>> mirrored_indices(-2, 7, 4).tolist()
    [2, 1, 0, 1, 2, 3, 2, 1, 0]
    """
    period = max(1, 2 * (length - 1))
    places = np.arange(start, stop, dtype=np.int64) % period
    return np.minimum(places, period - places)
