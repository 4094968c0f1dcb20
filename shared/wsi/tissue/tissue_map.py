"""Where on a slide there is tissue, and tiles drawn from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from ..slide import Slide
from .brightfield import brightfield_problem
from .detection import tissue_mask

_ROUNDING = 1e-4
# Masks of up to so many pixels are looked through whole for every draw. Those of larger ones, 4 x 4 mm at 8 um per pixel, would
# take a fifth of a second for a section of 25 x 20 mm: there, places are tried at random.
_LARGEST_ENUMERATED_PX = 2**18
_TRIES_A_TILE, _MAX_ROUNDS = 4, 16
# Mask pixels looked at together while places are tried.
_TRIED_AT_ONCE = 2**22


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

    def shares(self, xys: NDArray[np.int64] | NDArray[np.floating[Any]], extent_px: float) -> NDArray[np.float64]:
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
        side = self._tile_side(extent_px)
        shares = uniform_filter(self.mask.astype(np.float32), size=side, mode="constant")
        rows, columns = np.nonzero(shares >= min_tissue - _ROUNDING)
        return np.stack([columns, rows], axis=1)

    def sample_tiles(
        self, rng: np.random.Generator, num_tiles: int, extent_px: float, min_tissue: float = 0.5
    ) -> NDArray[np.int64]:
        """Tiles at random places of the tissue, not on a grid.

        Centres are drawn evenly from the mask pixels of `tile_centres`, each at most once while there are enough of them, and
        then anywhere within their pixel. On a large mask they are drawn from the tissue's bounding box, and those kept that
        are among these pixels, without finding all of them; where few are, all are found after all.

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
        chosen = self._try_centres(rng, num_tiles, extent_px, min_tissue) if self.mask.size > _LARGEST_ENUMERATED_PX else None
        if chosen is None:
            centres = self.tile_centres(extent_px, min_tissue)
            if not len(centres):
                raise ValueError(
                    f"no tile of {extent_px:.0f} level-0 pixels contains {min_tissue:.0%} tissue; {self.share:.1%} of the "
                    "slide is tissue. Choose another tissue method or a smaller min_tissue, or leave the slide out"
                )
            chosen = centres[rng.choice(len(centres), num_tiles, replace=len(centres) < num_tiles)]
        points = (chosen + rng.random((num_tiles, 2))) * self.pixel_px
        return np.floor(points - extent_px / 2 + 0.5).astype(np.int64)

    def _tile_side(self, extent_px: float) -> int:
        """Side of a tile in mask pixels."""
        return max(1, round(extent_px / self.pixel_px))

    def _try_centres(
        self, rng: np.random.Generator, num_tiles: int, extent_px: float, min_tissue: float
    ) -> NDArray[np.int64] | None:
        """`num_tiles` different ones of `tile_centres`, in random order; None where they are too rare to be hit upon."""
        box = self._box_of_centres(self._tile_side(extent_px))
        if box is None:
            return None
        found = np.empty((0, 2), np.int64)
        for _ in range(_MAX_ROUNDS):
            tried = rng.integers(*box, size=(_TRIES_A_TILE * num_tiles, 2))
            found = np.concatenate([found, tried[self._is_centre(tried, extent_px, min_tissue)]])
            first = np.sort(np.unique(found, axis=0, return_index=True)[1])
            found = found[first]
            if len(found) >= num_tiles:
                return found[:num_tiles]
        return None

    def _box_of_centres(self, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """First (x, y) and the one behind the last of the mask pixels around which a tile touches tissue; None without any."""
        columns, rows = (np.flatnonzero(self.mask.any(axis=axis)) for axis in (0, 1))
        if not len(rows):
            return None
        low = np.maximum(np.array([columns[0], rows[0]]) - side, 0)
        return low, np.minimum(np.array([columns[-1], rows[-1]]) + side + 1, self.mask.shape[::-1])

    def _is_centre(self, pixels: NDArray[np.int64], extent_px: float, min_tissue: float) -> NDArray[np.bool_]:
        """Which of some mask pixels (x, y) ``(n, 2)`` are among `tile_centres`: bool ``(n,)``."""
        side = self._tile_side(extent_px)
        height, width = self.mask.shape
        offsets = np.arange(side) - side // 2
        inside = np.empty(len(pixels), np.int64)
        step = max(1, _TRIED_AT_ONCE // side**2)
        for start in range(0, len(pixels), step):
            part = slice(start, start + step)
            x, y = (pixels[part, axis, None] + offsets for axis in (0, 1))
            touched = self.mask[np.clip(y, 0, height - 1)[:, :, None], np.clip(x, 0, width - 1)[:, None, :]]
            touched &= ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
            inside[part] = touched.sum(axis=(1, 2))
        return inside / side**2 >= min_tissue - _ROUNDING


def find_tissue(slide: Slide, mpp: float = 8.0, method: str = "otsu") -> TissueMap:
    """Find a slide's tissue.

    Args:
        slide: which knows its pixel size.
        mpp: micrometres per pixel at which tissue is looked for, about; slides coarser than that are taken as they are.
        method: see `tissue_mask`.

    Raises:
        ValueError: if the slide does not state its pixel size, cannot be read, or is no picture of stained tissue on
            bright glass.
    """
    thumbnail = slide.thumbnail(_longest_side(slide, mpp))
    problem = brightfield_problem(thumbnail, needs_colour=method != "white")
    if problem is not None:
        raise ValueError(f"the tissue of {slide.path} cannot be found: {problem}")
    return TissueMap(tissue_mask(thumbnail, method), max(slide.size_px) / max(thumbnail.shape[:2]))


def tissue_mask_shape(slide: Slide, mpp: float = 8.0) -> tuple[int, int]:
    """(height, width) of the mask that `find_tissue` gives of a slide, without finding it."""
    downsample = max(1.0, max(slide.size_px) / _longest_side(slide, mpp))
    width, height = (max(1, round(side / downsample)) for side in slide.size_px)
    return height, width


def _longest_side(slide: Slide, mpp: float) -> int:
    return math.ceil(max(slide.size_px) * min(1.0, slide.mpp / mpp))
