"""Where on a slide there is tissue, and tiles drawn from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from .slide import Slide
from .tissue import tissue_mask

_ROUNDING = 1e-4


@dataclass(frozen=True)
class TissueMap:
    """The tissue of one slide.

    Args:
        mask: bool ``(h, w)``; pixel (row, column) stands for the square of level-0 pixels that begins at
            ``(column, row) * pixel_px``.
        pixel_px: level-0 pixels per mask pixel.
    """

    mask: NDArray[np.bool_]
    pixel_px: float

    @property
    def share(self) -> float:
        """Share of the slide that is tissue."""
        return float(self.mask.mean())

    def shares(self, xys: NDArray[np.int64], extent_px: float) -> NDArray[np.float64]:
        """Share of tissue in squares of the slide; what lies outside it is none.

        Args:
            xys: ``(n, 2)`` top-left corners (x, y) in level-0 pixels.
            extent_px: side of a square in level-0 pixels.

        Returns:
            ``(n,)``, of the mask pixels that a square touches.
        """
        # An integral image gives every square's sum in constant time.
        sums = np.pad(self.mask.cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0)))
        limit = np.array(self.mask.shape[::-1])
        start = np.floor(xys / self.pixel_px).astype(np.int64)
        stop = np.maximum(np.ceil((xys + extent_px) / self.pixel_px).astype(np.int64), start + 1)
        (x0, y0), (x1, y1) = np.clip(start, 0, limit).T, np.clip(stop, 0, limit).T
        inside = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
        return inside / (stop - start).prod(axis=1)

    def tile_centres(self, extent_px: float, min_tissue: float) -> NDArray[np.int64]:
        """The mask pixels around which a tile holds enough tissue.

        Args:
            extent_px: side of a tile in level-0 pixels.
            min_tissue: least share of tissue, in (0, 1].

        Returns:
            ``(n, 2)``: (x, y) in mask pixels, row by row.
        """
        side = max(1, round(extent_px / self.pixel_px))
        shares = uniform_filter(self.mask.astype(np.float32), size=side, mode="constant")
        rows, columns = np.nonzero(shares >= min_tissue - _ROUNDING)
        return np.stack([columns, rows], axis=1)

    def sample_tiles(
        self, rng: np.random.Generator, num_tiles: int, extent_px: float, min_tissue: float = 0.5
    ) -> NDArray[np.int64]:
        """Tiles at random places of the tissue, not on a grid.

        Centres are drawn evenly from the mask pixels of `tile_centres`, each at most once while there are enough of them, and
        then anywhere within their pixel.

        Args:
            rng: to draw from.
            num_tiles: to draw.
            extent_px: side of a tile in level-0 pixels.
            min_tissue: least share of tissue in a tile, to the precision of the mask.

        Returns:
            ``(num_tiles, 2)`` top-left corners (x, y) in level-0 pixels.

        Raises:
            ValueError: if no place holds enough tissue.
        """
        centres = self.tile_centres(extent_px, min_tissue)
        if not len(centres):
            raise ValueError(
                f"no tile of {extent_px:.0f} level-0 pixels holds {min_tissue:.0%} tissue; {self.share:.1%} of the slide is "
                "tissue. Choose another tissue method or a smaller min_tissue, or leave the slide out"
            )
        chosen = centres[rng.choice(len(centres), num_tiles, replace=len(centres) < num_tiles)]
        points = (chosen + rng.random((num_tiles, 2))) * self.pixel_px
        return np.floor(points - extent_px / 2 + 0.5).astype(np.int64)


def find_tissue(slide: Slide, mpp: float = 8.0, method: str = "otsu") -> TissueMap:
    """Find a slide's tissue.

    Args:
        slide: which knows its pixel size.
        mpp: micrometres per pixel at which tissue is looked for, about; slides coarser than that are taken as they are.
        method: see `tissue_mask`.

    Raises:
        ValueError: if the slide does not say how large its pixels are, or cannot be read.
    """
    longest = max(slide.size_px)
    thumbnail = slide.thumbnail(math.ceil(longest * min(1.0, slide.mpp / mpp)))
    return TissueMap(tissue_mask(thumbnail, method), longest / max(thumbnail.shape[:2]))
