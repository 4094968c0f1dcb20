"""The squares that a browser requests while it zooms."""

from __future__ import annotations

import math
from dataclasses import dataclass

TILE_PX = 256
# Browsers prefetch, and zoom in beyond level 0.
_DEEPER = 6


@dataclass(frozen=True)
class Zoom:
    """A pyramid of `TILE_PX` squares over a slide: zoom 0 shows all of it in one square, zoom `deepest` its level-0 pixels.

    Args:
        size_px: (width, height) of the slide's level 0.
    """

    size_px: tuple[int, int]

    @property
    def deepest(self) -> int:
        """The zoom at which one pixel of a square is one pixel of level 0.

        >>> Zoom((256, 200)).deepest, Zoom((257, 200)).deepest, Zoom((100_000, 80_000)).deepest
        (0, 1, 9)
        """
        return max(0, math.ceil(math.log2(max(self.size_px) / TILE_PX)))

    @property
    def side_px(self) -> int:
        """Side of the square of zoom 0, in level-0 pixels."""
        return TILE_PX << self.deepest

    def step(self, zoom: int) -> float:
        """Level-0 pixels per pixel of a square; below 1 for zooms deeper than `deepest`."""
        return float(2.0 ** (self.deepest - zoom))

    def corner(self, zoom: int, column: int, row: int) -> tuple[int, int] | None:
        """(x, y) of a square's top-left corner in level-0 pixels; None if the square lies outside the slide.

        Raises:
            ValueError: if `zoom` is out of range.
        """
        if not 0 <= zoom <= self.deepest + _DEEPER:
            raise ValueError(f"zoom must be from 0 to {self.deepest + _DEEPER}, found {zoom}")
        side = round(TILE_PX * self.step(zoom))
        x, y = column * side, row * side
        return (x, y) if 0 <= x < self.size_px[0] and 0 <= y < self.size_px[1] else None
