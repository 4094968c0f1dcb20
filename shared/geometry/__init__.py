"""Coordinate maths of slides: no files, no pixels. Points are (x, y) in level-0 pixels, arrays are (H, W)."""

from .mirroring import mirrored_indices
from .pyramid import (
    MPP_TOLERANCE,
    is_reduction,
    level_downsamples,
    mpp_to_downsample,
    nearest_finer_level,
    snap_downsample,
)
from .tile_grid import TileGrid

__all__ = [
    "MPP_TOLERANCE",
    "TileGrid",
    "is_reduction",
    "level_downsamples",
    "mirrored_indices",
    "mpp_to_downsample",
    "nearest_finer_level",
    "snap_downsample",
]
