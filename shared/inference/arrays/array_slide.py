"""An image in memory, as a slide."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...wsi.readers.pillow import PillowReader
from ...wsi.slide import Slide
from ...wsi.spacing import STATED_RANGE, is_possible_spacing

# As a file with these pixels would be called: no pixel size of its own, and seen whole where it is small.
NAME = "array.png"


class ArraySlide(Slide):
    """A `Slide` of one level whose pixels are an array. It stays open, and is for the process that holds the array.

    Args:
        rgb: uint8 ``(H, W, 3)``.
        mpp: micrometres per pixel.

    Raises:
        ValueError: for another type or shape, or a pixel size that is none.
    """

    def __init__(self, rgb: NDArray[np.uint8], mpp: float) -> None:
        check_rgb(rgb)
        if not is_possible_spacing(mpp):
            raise ValueError(f"mpp must be a positive number of micrometres per pixel ({STATED_RANGE}), got {mpp}")
        self.path = Path(NAME)
        self._library = PillowReader
        self._library_levels = (0,)
        self.level_sizes_px = ((rgb.shape[1], rgb.shape[0]),)
        self.level_downsamples = (1.0,)
        self.bounds_px = (0, 0, rgb.shape[1], rgb.shape[0])
        self._mpp, self.mpp_note = mpp, ""
        self._reader, self._reader_pid = _ArrayReader(rgb), os.getpid()

    def close(self) -> None:
        """Nothing: there is no file."""


class _ArrayReader:
    """See `LevelReader`."""

    def __init__(self, rgb: NDArray[np.uint8]) -> None:
        self._rgb = rgb
        self.level_sizes_px: tuple[tuple[int, int], ...] = ((rgb.shape[1], rgb.shape[0]),)

    def read(self, level: int, origins: NDArray[np.int64], size_px: tuple[int, int], num_workers: int) -> NDArray[np.uint8]:
        width, height = size_px
        return np.stack([self._rgb[y : y + height, x : x + width] for x, y in origins.tolist()])

    def properties(self) -> Mapping[str, str]:
        return {}

    def close(self) -> None: ...


def check_rgb(rgb: NDArray[np.uint8]) -> None:
    """Raises ValueError unless an array is an image: uint8 ``(H, W, 3)``."""
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        found = f"{rgb.dtype} {rgb.shape}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
        raise ValueError(f"expected an image, RGB, uint8 (H, W, 3), found {found}")
