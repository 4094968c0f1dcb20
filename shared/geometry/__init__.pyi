from .pyramid import (
    is_reduction as is_reduction,
    level_downsamples as level_downsamples,
    mpp_to_downsample as mpp_to_downsample,
    nearest_finer_level as nearest_finer_level,
    snap_downsample as snap_downsample,
)
from .tile_grid import TileGrid as TileGrid
