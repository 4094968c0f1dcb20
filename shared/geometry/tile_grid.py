"""The tiles that cover a slide."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .pyramid import MPP_TOLERANCE, mpp_to_downsample, snap_downsample


@dataclass(frozen=True)
class TileGrid:
    """Square tiles, row by row, that cover a whole slide; those at the right and bottom border reach beyond it.

    Nothing is stored a tile: positions are computed when asked for. They are rounded to whole level-0 pixels each on
    its own, so the rounding (at most half a pixel) does not add up along a row.

    Args:
        slide_size_px: (width, height) of level 0.
        tile_size_px: side of a tile, in pixels as read (that is, at `downsample`).
        downsample: level-0 pixels per pixel of a tile; `for_mpp` derives it from micrometres.
        stride_px: step from tile to tile in pixels as read, ``1..tile_size_px``; 0 means `tile_size_px`, no overlap.

    Raises:
        ValueError: if a size or the downsample is not positive, or the stride would leave gaps.

    >>> grid = TileGrid(slide_size_px=(1000, 600), tile_size_px=256, downsample=2.0)
    >>> grid.num_columns, grid.num_rows, len(grid)
    (2, 2, 4)
    >>> grid.positions().tolist()
    [[0, 0], [512, 0], [0, 512], [512, 512]]
    """

    slide_size_px: tuple[int, int]
    tile_size_px: int
    downsample: float = 1.0
    stride_px: int = 0

    def __post_init__(self) -> None:
        if min(self.slide_size_px) < 1 or self.tile_size_px < 1:
            raise ValueError(f"sizes must be positive: slide {self.slide_size_px}, tile {self.tile_size_px}")
        if not (math.isfinite(self.downsample) and self.downsample > 0):
            raise ValueError(f"downsample must be positive, got {self.downsample}")
        if not 0 <= self.stride_px <= self.tile_size_px:
            raise ValueError(f"stride_px {self.stride_px} must lie in 1..{self.tile_size_px} (or 0): otherwise there are gaps")

    @classmethod
    def for_mpp(
        cls,
        slide_size_px: tuple[int, int],
        slide_mpp: float,
        tile_size_px: int,
        mpp: float,
        stride_px: int = 0,
        level_downsamples: Sequence[float] = (1.0,),
        tolerance: float = MPP_TOLERANCE,
    ) -> TileGrid:
        """Grid of tiles of `mpp` on a slide of `slide_mpp`, both in micrometres per pixel.

        A slide level within `tolerance` of `mpp` is read without resampling (see `shared.wsi.Slide`); the grid then
        steps by that level's pixels, so that neighbouring tiles neither overlap nor leave a gap.
        """
        wanted = mpp_to_downsample(mpp, slide_mpp)
        return cls(slide_size_px, tile_size_px, snap_downsample(level_downsamples, wanted, tolerance), stride_px)

    @property
    def step_px(self) -> float:
        """Distance of neighbouring tiles in level-0 pixels."""
        return (self.stride_px or self.tile_size_px) * self.downsample

    @property
    def tile_extent_px(self) -> float:
        """Side of a tile in level-0 pixels."""
        return self.tile_size_px * self.downsample

    @property
    def num_columns(self) -> int:
        return self._num_along(self.slide_size_px[0])

    @property
    def num_rows(self) -> int:
        return self._num_along(self.slide_size_px[1])

    def _num_along(self, length_px: int) -> int:
        # Less than half a level-0 pixel is not worth a tile: positions are rounded to whole pixels anyway.
        return 1 + max(0, math.ceil((length_px - self.tile_extent_px - 0.5) / self.step_px))

    def __len__(self) -> int:
        return self.num_rows * self.num_columns

    def positions(self, start: int = 0, stop: int | None = None) -> NDArray[np.int64]:
        """Top-left corners of the tiles `start`..`stop`, row-major.

        Returns:
            ``(n, 2)``: (x, y) in level-0 pixels.
        """
        index = np.arange(*slice(start, stop).indices(len(self)))
        row, column = np.divmod(index, self.num_columns)
        # Not np.rint: it rounds halves to even, and a step of 1.5 would then alternate 2, 1, 1, 2.
        return np.floor(np.stack([column, row], axis=1) * self.step_px + 0.5).astype(np.int64)

    def batches(self, batch_size: int) -> Iterator[NDArray[np.int64]]:
        """Positions in runs of `batch_size` (the last may be shorter), each ``(n, 2)`` as from `positions`."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        for start in range(0, len(self), batch_size):
            yield self.positions(start, start + batch_size)
