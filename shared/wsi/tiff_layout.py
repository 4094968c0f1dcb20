"""What the tags of a TIFF say, without decoding a pixel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from .tiff_images import TiffImage, next_directory, tiff_images

_MAGIC_NUMBERS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


@dataclass(frozen=True)
class TiffPageLayout:
    """One page (level, label, ...).

    `empty_tiles` is (rows, columns): True where the writer left a tile out; `tile_spans` is ``(num_tiles, 2)``: the offset and
    the length of each tile in the file. Both are empty for pages whose tiles do not hold whole pixels.
    """

    size_px: tuple[int, int]
    is_tiled: bool
    tile_size_px: tuple[int, int]
    compression: int
    predictor: int
    is_uint8_rgb: bool
    empty_tiles: NDArray[np.bool_] = field(repr=False)
    tile_spans: NDArray[np.int64] = field(repr=False)


@dataclass(frozen=True)
class TiffLayout:
    """The pages of a TIFF and the tags that may hold its pixel size; `resolution` is (x, y, ResolutionUnit).

    `images` are all its directories in the order of the file, as simple readers see them.
    """

    pages: tuple[TiffPageLayout, ...]
    description: str
    ome_xml: str | None
    resolution: tuple[float, float, int] | None
    images: tuple[TiffImage, ...] = ()

    def page_of_size(self, size_px: tuple[int, int]) -> TiffPageLayout | None:
        """The first tiled page of (width, height) `size_px`."""
        return next((page for page in self.pages if page.is_tiled and page.size_px == size_px), None)


def is_tiff(path: Path) -> bool:
    """Whether a file begins as TIFF files do."""
    with path.open("rb") as file:
        return file.read(4) in _MAGIC_NUMBERS


def read_tiff_layout(path: Path) -> TiffLayout | None:
    """Layout of a TIFF, or None for a file of another kind and for tags that tifffile does not understand.

    Raises:
        ValueError: if the file is shorter than its tags say.
    """
    if not is_tiff(path):
        return None
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = first_pages(tiff)
            layout = _layout(tiff, pages) if pages else None
            end = max((int(o) + int(n) for page in pages for o, n in _segments(page)), default=0)
            end = max(end, next_directory(tiff))
    except Exception:  # damaged tags raise nearly anything; the other libraries may still know the format
        return None
    if end > path.stat().st_size:
        raise ValueError(
            f"{path}: the file is cut short: its tags point to byte {end}, it has {path.stat().st_size}; copy it again"
        )
    return layout


def first_pages(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The first page of every level of every image."""
    return [page for series in tiff.series for level in series.levels for page in _first_page(level)]


def _segments(page: tifffile.TiffPage) -> Iterator[tuple[int, int]]:
    return zip(page.dataoffsets, page.databytecounts, strict=True)


def _first_page(level: tifffile.TiffPageSeries) -> list[tifffile.TiffPage]:
    return [level.pages[0].aspage()] if level.pages and level.pages[0] is not None else []


def _layout(tiff: tifffile.TiffFile, pages: list[tifffile.TiffPage]) -> TiffLayout:
    first = pages[0]
    resolution = None
    if "XResolution" in first.tags and "YResolution" in first.tags:
        unit = first.tags["ResolutionUnit"].value if "ResolutionUnit" in first.tags else 2  # TIFF 6.0: inch
        values = [first.tags[name].value for name in ("XResolution", "YResolution")]
        x, y = (value[0] / value[1] if value[1] else 0.0 for value in values)
        resolution = (x, y, int(unit))
    return TiffLayout(
        tuple(_page_layout(page) for page in pages), first.description, tiff.ome_metadata, resolution, tiff_images(tiff)
    )


def _page_layout(page: tifffile.TiffPage) -> TiffPageLayout:
    tile = (page.tilewidth, page.tilelength) if page.is_tiled else (0, 0)
    empty, spans = np.zeros((0, 0), dtype=bool), np.zeros((0, 2), dtype=np.int64)
    if page.is_tiled and page.planarconfig == 1:
        rows, columns = -(-page.imagelength // tile[1]), -(-page.imagewidth // tile[0])
        spans = np.array([page.dataoffsets, page.databytecounts], dtype=np.int64).T[: rows * columns]
        empty = spans[:, 1].reshape(rows, columns) == 0
    return TiffPageLayout(
        size_px=(page.imagewidth, page.imagelength),
        is_tiled=page.is_tiled,
        tile_size_px=tile,
        compression=int(page.compression),
        predictor=int(page.predictor),
        is_uint8_rgb=page.dtype == np.uint8 and page.samplesperpixel == 3 and page.planarconfig == 1,
        empty_tiles=empty,
        tile_spans=spans,
    )
