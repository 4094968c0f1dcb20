"""What the tags of a TIFF say, without decoding a pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from .images import TiffImage, next_directory, tiff_images

# No compression, LZW, deflate, PackBits, Zstandard: what is decoded are the samples as they were.
_NO_PHOTO_CODECS = (1, 5, 8, 32773, 32946, 50000)
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

    `sub_levels` are those of the pages that hold the levels of the first page as its sub-IFDs. `orientation` is how the first
    page is to be turned, 1 to 8, see `upright`. `images` are all its directories in the order of the file, as simple readers
    see them.
    """

    pages: tuple[TiffPageLayout, ...]
    description: str
    ome_xml: str | None
    resolution: tuple[float, float, int] | None
    sub_levels: tuple[TiffPageLayout, ...] = ()
    orientation: int = 1
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
            f"{path}: the file is truncated: its tags point to byte {end}, but it has {path.stat().st_size}; copy it again"
        )
    return layout


def glass_tiles(levels: Sequence[TiffPageLayout | None]) -> list[NDArray[np.bool_]]:
    """The tiles of each level, finest first, that are left out on it and, at the same place, on all finer ones.

    Args:
        levels: None where nothing is known of one.

    Returns:
        ``(rows, columns)`` each; all False for unknown levels and those above them.
    """
    glass: list[NDArray[np.bool_]] = []
    for index, page in enumerate(levels):
        if page is None:
            glass.append(np.zeros((0, 0), dtype=bool))
        elif index == 0 or not page.empty_tiles.any():
            glass.append(page.empty_tiles)
        else:
            glass.append(page.empty_tiles & _lies_on(glass[-1], levels[index - 1], page))
    return glass


def _lies_on(marked: NDArray[np.bool_], finer: TiffPageLayout | None, page: TiffPageLayout) -> NDArray[np.bool_]:
    """Which tiles of `page` have only `marked` tiles of the next `finer` page at their place: ``(rows, columns)``."""
    if finer is None or not marked.any():
        return np.zeros(page.empty_tiles.shape, dtype=bool)
    sums = np.pad((~marked).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    edges = []
    for axis, count in ((1, page.empty_tiles.shape[0]), (0, page.empty_tiles.shape[1])):
        tile = page.tile_size_px[axis] * finer.size_px[axis] / page.size_px[axis] / finer.tile_size_px[axis]
        starts = np.arange(count) * tile
        edges.append((np.floor(starts).astype(int), np.minimum(np.ceil(starts + tile).astype(int), sums.shape[1 - axis] - 1)))
    (top, bottom), (left, right) = edges
    unmarked = sums[np.ix_(bottom, right)] - sums[np.ix_(top, right)] - sums[np.ix_(bottom, left)] + sums[np.ix_(top, left)]
    return np.asarray(unmarked == 0)


def first_pages(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The first page of every level of every image."""
    return [page for series in tiff.series for level in series.levels for page in _first_page(level)]


def sub_level_pages(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The pages of the levels that the first page keeps as its sub-IFDs, as OME-TIFF does."""
    if not tiff.pages.first.subifds:
        return []
    return [page for level in tiff.series[0].levels[1:] for page in _first_page(level)]


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
        pages=tuple(_page_layout(page) for page in pages),
        description=first.description,
        ome_xml=tiff.ome_metadata,
        resolution=resolution,
        sub_levels=tuple(_page_layout(page) for page in sub_level_pages(tiff)),
        orientation=int(first.tags.valueof("Orientation", 1)),
        images=tiff_images(tiff),
    )


def _is_plain_ycbcr(page: tifffile.TiffPage) -> bool:
    """Whether samples are stored as YCbCr by no codec for photos: those of JPEG and JPEG 2000 make RGB of it themselves."""
    return page.photometric == tifffile.PHOTOMETRIC.YCBCR and page.compression in _NO_PHOTO_CODECS


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
        is_uint8_rgb=page.dtype == np.uint8
        and page.samplesperpixel == 3
        and page.planarconfig == 1
        and not _is_plain_ycbcr(page),
        empty_tiles=empty,
        tile_spans=spans,
    )
