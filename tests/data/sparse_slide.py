"""Slides as large as real ones in files of some kilobytes: what is glass takes no room."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tifffile

Box = tuple[float, float, float, float]
TILE_PX, LEVELS = 1024, (1, 2, 4, 8, 16, 32, 64)


def write_sparse_slide(path: Path, size_px: tuple[int, int], tissue: Sequence[Box], mpp: float = 0.25) -> Path:
    """Write a pyramid of JPEG tiles of which only those with tissue, and the first, are stored.

    Args:
        path: of the TIFF.
        size_px: (width, height) of level 0.
        tissue: (left, top, right, bottom) of each piece of tissue, in level-0 pixels.
        mpp: micrometres per level-0 pixel.
    """
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for downsample in LEVELS:
            width, height = (side // downsample for side in size_px)
            tiff.write(
                _tiles((width, height), [tuple(side / downsample for side in box) for box in tissue]),
                shape=(height, width, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression="jpeg",
                subfiletype=int(downsample > 1),
                metadata=None,
                resolution=(1e4 / mpp / downsample,) * 2,
                resolutionunit="CENTIMETER",
            )
    return path


def _tiles(size_px: tuple[int, int], tissue: Sequence[Box]) -> Iterator[np.ndarray | None]:
    for y in range(0, size_px[1], TILE_PX):
        for x in range(0, size_px[0], TILE_PX):
            own = [box for box in tissue if box[0] < x + TILE_PX and box[2] > x and box[1] < y + TILE_PX and box[3] > y]
            # The writer takes its type from the first tile.
            if not own and (x or y):
                yield None
                continue
            tile = np.full((TILE_PX, TILE_PX, 3), 255, np.uint8)
            rows, columns = (np.arange(start, start + TILE_PX) for start in (y, x))
            for left, top, right, bottom in own:
                tile[((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))] = (190, 90, 160)
            yield tile
