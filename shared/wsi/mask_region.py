"""Regions of a tumour mask that belongs to a slide or an image."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from .tiff_tiles import decode_tile

_TIFF_SUFFIXES = (".tif", ".tiff", ".svs")
# A level-0 mask of a small slide is 10 MB; PNG masks have no regions, so the whole file is decoded and kept.
_MAX_DECODED_MASKS = 8


def read_mask_region(
    path: str | Path,
    xy: tuple[int, int],
    size_px: int | tuple[int, int],
    image_size_px: tuple[int, int],
    downsample: float = 1.0,
    image_path: str | Path | None = None,
) -> NDArray[np.uint8]:
    """The part of a mask that belongs to a region read with `Slide.read_region`: nearest neighbour, 0 or 1.

    Args:
        path: PNG, BMP or TIFF; any nonzero pixel (of any colour channel) is tumour. A tiled TIFF is read by region,
            other files are decoded whole and the last few kept.
        xy: top-left corner of the region in level-0 pixels of the *image*, anywhere.
        size_px: (width, height) or one side of the result.
        image_size_px: (width, height) of the image's level 0. The mask has this size or a whole fraction of it.
        downsample: level-0 pixels of the image per pixel of the result, as from `Slide.downsample(mpp)`.
        image_path: the image, for error messages only.

    Returns:
        ``(height, width)``; 0 outside the image.

    Raises:
        ValueError: if the mask is missing, damaged, JPEG-compressed (its edges ring, so "nonzero" means nothing), or
            its size is no whole fraction of the image's.
    """
    path = Path(path)
    width, height = (size_px, size_px) if isinstance(size_px, int | np.integer) else size_px
    mask = _open_mask(path)
    factor = _whole_factor(path, mask.size_px, image_size_px, image_path)
    columns, rows = (
        np.floor(start + (np.arange(length) + 0.5) * downsample).astype(np.int64)
        for start, length in zip(xy, (width, height), strict=True)
    )
    inside_x, inside_y = ((p >= 0) & (p < side) for p, side in zip((columns, rows), image_size_px, strict=True))
    region = np.zeros((height, width), dtype=np.uint8)
    if inside_x.any() and inside_y.any():
        # Where the image's size is no multiple of the factor, the last pixel of a rounded-down mask stands for more.
        x = np.minimum(columns[inside_x] // factor, mask.size_px[0] - 1)
        y = np.minimum(rows[inside_y] // factor, mask.size_px[1] - 1)
        window = mask.read(int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1)
        region[np.ix_(inside_y, inside_x)] = window[np.ix_(y - y[0], x - x[0])]
    return region


def _whole_factor(path: Path, mask_size: tuple[int, int], image_size: tuple[int, int], image_path: str | Path | None) -> int:
    """Image pixels per mask pixel."""
    factor = max(1, round(image_size[0] / mask_size[0]))
    if any(abs(mask - image / factor) >= 1 for mask, image in zip(mask_size, image_size, strict=True)):
        of_image = f"{image_path} " if image_path is not None else "its image "
        raise ValueError(
            f"the mask {path} is {mask_size[0]} x {mask_size[1]} px, {of_image}{image_size[0]} x {image_size[1]} px: "
            "a mask must have the image's size, or a half, a third, ... of it"
        )
    return factor


class _RefusedMask(ValueError):
    """A mask that can be read but not be used."""


class _DecodedMask:
    """A mask in memory: ``(H, W)`` uint8, 0 or 1."""

    def __init__(self, mask: NDArray[np.uint8]) -> None:
        self._mask = mask
        self.size_px = (mask.shape[1], mask.shape[0])

    def read(self, left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
        return self._mask[top:bottom, left:right]


class _TiledMask:
    """A tiled TIFF of which only the tiles asked for are decoded. The file is open during `read` only."""

    def __init__(self, path: Path, size_px: tuple[int, int]) -> None:
        self._path = path
        self.size_px = size_px

    def read(self, left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
        try:
            with tifffile.TiffFile(self._path) as tiff:
                return self._read(tiff, left, top, right, bottom)
        except Exception as error:  # damage to a tile: each codec has errors of its own
            raise ValueError(f"the mask {self._path} cannot be read ({error}); is the file complete?") from error

    def _read(self, tiff: tifffile.TiffFile, left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
        mask = np.zeros((bottom - top, right - left), dtype=np.uint8)
        page = tiff.pages[0].aspage()
        columns_a_row = -(-page.imagewidth // page.tilewidth)
        for row in range(top // page.tilelength, -(-bottom // page.tilelength)):
            for column in range(left // page.tilewidth, -(-right // page.tilewidth)):
                tile = decode_tile(tiff, page, row * columns_a_row + column)
                if tile is None:
                    continue
                y, x = row * page.tilelength, column * page.tilewidth
                part = _as_mask(tile[max(0, top - y) : bottom - y, max(0, left - x) : right - x])
                y, x = max(y, top) - top, max(x, left) - left
                mask[y : y + part.shape[0], x : x + part.shape[1]] = part
        return mask


def _open_mask(path: Path) -> _DecodedMask | _TiledMask:
    try:
        modified_ns = path.stat().st_mtime_ns
    except OSError as error:
        raise ValueError(f"the mask {path} cannot be read ({error}); check the manifest's `mask` column") from error
    return _open_mask_once(path, modified_ns)


@functools.lru_cache(maxsize=_MAX_DECODED_MASKS)
def _open_mask_once(path: Path, modified_ns: int) -> _DecodedMask | _TiledMask:
    """`modified_ns` is there so that a mask that was written again is read again."""
    try:
        if path.suffix.lower() in _TIFF_SUFFIXES:
            return _open_tiff_mask(path)
        with Image.open(path) as image:
            _refuse_jpeg(path, image.format == "JPEG")
            bands = [image.getchannel(band) for band in image.getbands() if band != "A"]
            return _DecodedMask(_as_mask(np.stack([np.asarray(band) for band in bands], axis=-1)))
    except _RefusedMask:
        raise
    except Exception as error:  # damage: besides OSError anything from SyntaxError (Pillow) to the codecs' own errors
        raise ValueError(f"the mask {path} cannot be read ({error}); save it as PNG or tiled TIFF") from error


def _open_tiff_mask(path: Path) -> _DecodedMask | _TiledMask:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0].aspage()
        _refuse_jpeg(path, page.compression == tifffile.COMPRESSION.JPEG)
        if page.is_tiled and page.planarconfig == 1:
            return _TiledMask(path, (page.imagewidth, page.imagelength))
        pixels = page.asarray()
        pixels = np.moveaxis(pixels, 0, -1) if pixels.ndim == 3 and page.planarconfig == 2 else pixels
        return _DecodedMask(_as_mask(pixels if pixels.ndim == 3 else pixels[..., None]))


def _refuse_jpeg(path: Path, is_jpeg: bool) -> None:
    if is_jpeg:
        raise _RefusedMask(f"the mask {path} is JPEG-compressed, which blurs its edge; save it as PNG or deflate TIFF")


def _as_mask(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """``(H, W, C)`` to ``(H, W)``, 1 where a colour channel is not 0; the fourth (or second) is transparency."""
    channels = pixels.shape[-1]
    return (pixels[..., : channels - 1 if channels in (2, 4) else channels] != 0).any(axis=-1).astype(np.uint8)
