"""Slides of any size for measurements, made by repeating the encoded tiles of one generated patch on glass."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from shared.synthetic import synthesize_image
from shared.synthetic.slide import write_slide

PATCH_PX, TILE_PX, MPP = 2048, 256, 0.5
# At downsample 8 a patch is one tile; at 64 the level is small enough to be drawn pixel by pixel.
_LEVELS = (1, 8, 64)


def write_repeated_slide(path: Path, size_px: tuple[int, int], num_tissue_tiles: int) -> int:
    """Write a pyramidal JPEG TIFF at 0.5 um per pixel with tissue in its centre.

    Args:
        path: file to write.
        size_px: (width, height), each at least 2048 px, the size of a patch.
        num_tissue_tiles: number of 256 px tiles with tissue, rounded up to whole patches of 64 tiles as far as these fit.

    Returns:
        the number of 256 px tiles with tissue.
    """
    columns, rows = (max(1, side // PATCH_PX) for side in size_px)
    y, x = np.mgrid[:rows, :columns]
    distance = np.hypot((y - (rows - 1) / 2) / rows, (x - (columns - 1) / 2) / columns)
    num_patches = min(rows * columns, math.ceil(num_tissue_tiles / (PATCH_PX // TILE_PX) ** 2))
    is_tissue = np.zeros((rows, columns), bool)
    is_tissue.ravel()[np.argsort(distance, axis=None, kind="stable")[:num_patches]] = True

    patch = synthesize_image(0, tumour_share=0.3, size_px=PATCH_PX).image
    thumbnail = np.full((rows, columns, 32, 32, 3), 255, np.uint8)
    thumbnail[is_tissue] = patch.reshape(32, 64, 32, 64, 3).mean(axis=(1, 3)).astype(np.uint8)
    drawn = thumbnail.swapaxes(1, 2).reshape(rows * 32, columns * 32, 3)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in _LEVELS:
            width, height = (-(-side // level) for side in size_px)
            if level == _LEVELS[-1]:
                whole = np.full((height, width, 3), 255, np.uint8)
                whole[: len(drawn), : drawn.shape[1]] = drawn[:height, :width]
                tiff.write(whole, photometric="rgb", **_options(level))
                continue
            tissue, glass = (_encoded(path, image[::level, ::level]) for image in (patch, np.full_like(patch, 255)))
            tiff.write(
                _tiles(is_tissue, tissue, glass, (width, height), PATCH_PX // level),
                shape=(height, width, 3),
                dtype=np.uint8,
                photometric="ycbcr",
                subsampling=(2, 2),
                **_options(level),
            )
    return num_patches * (PATCH_PX // TILE_PX) ** 2


def _options(level: int) -> dict:
    resolution = 1e4 / (MPP * level)
    return {
        "tile": (TILE_PX, TILE_PX),
        "compression": "jpeg",
        "subfiletype": 0 if level == 1 else 1,
        "resolution": (resolution, resolution),
        "resolutionunit": "CENTIMETER",
        "metadata": None,
    }


def _encoded(path: Path, image: np.ndarray) -> list[list[bytes]]:
    """The JPEG streams of an image's tiles, row by row."""
    scratch = path.with_suffix(".patch.tif")
    write_slide(scratch, image)
    with tifffile.TiffFile(scratch) as tiff:
        page = tiff.pages[0]
        streams = []
        for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
            tiff.filehandle.seek(offset)
            streams.append(tiff.filehandle.read(length))
    scratch.unlink()
    side = image.shape[1] // TILE_PX
    return [streams[row * side : (row + 1) * side] for row in range(side)]


def _tiles(
    is_tissue: np.ndarray, tissue: list[list[bytes]], glass: list[list[bytes]], size_px: tuple[int, int], patch_px: int
) -> Iterator[bytes]:
    side = patch_px // TILE_PX
    columns, rows = (-(-length // TILE_PX) for length in size_px)
    for row in range(rows):
        for column in range(columns):
            place = (row // side, column // side)
            inside = place[0] < is_tissue.shape[0] and place[1] < is_tissue.shape[1]
            yield (tissue if inside and is_tissue[place] else glass)[row % side][column % side]
