"""Slides of every vendor through OpenSlide."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..tiff.tiles import TileCheck
from .cucim_support import PLAIN_TILE_VENDORS
from .reader import TIFF_SUFFIXES, Reader, SlideFile, on_glass, turned_tiles_problem

# Formats of a scanner's vendor, and DICOM. What else such a file holds (a label, a preview) is not the slide.
SLIDE_SUFFIXES = frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".dcm", ".czi", ".qptiff"})


class OpenSlideReader(Reader):
    """Whatever OpenSlide reads.

    OpenSlide takes level-0 coordinates and interpolates between level pixels: where a level's downsample is no whole
    number (2.0005), its pixels are shifted by up to a quarter of a pixel against cuCIM's and the file's own. It reads on
    after some damage: so the tiles of a TIFF of plain tiles go through `TileCheck` first.
    """

    name = "openslide"
    suffixes = SLIDE_SUFFIXES | TIFF_SUFFIXES

    @classmethod
    def problem(cls, file: SlideFile) -> str | None:
        is_unknown = "not a slide format that OpenSlide knows, or OpenSlide is not installed" if file.vendor is None else None
        return turned_tiles_problem(cls.name, file.layout) or is_unknown

    def __init__(self, file: SlideFile) -> None:
        import openslide

        self._error = openslide.OpenSlideError
        try:
            self._slide = openslide.OpenSlide(str(file.path))
        except openslide.OpenSlideError as error:
            raise RuntimeError(str(error)) from error
        self._properties: Mapping[str, str] = dict(self._slide.properties)
        self.level_sizes_px = tuple((int(w), int(h)) for w, h in self._slide.level_dimensions)
        # By which the library divides, whatever the sides say.
        self._downsamples = tuple(float(downsample) for downsample in self._slide.level_downsamples)
        has_plain_tiles = self._properties.get("openslide.vendor") in PLAIN_TILE_VENDORS
        self._pages = [file.page_of_size(size) if has_plain_tiles else None for size in self.level_sizes_px]
        self._tiles = TileCheck(file.path)

    def read(self, level: int, origins: NDArray[np.int64], size_px: tuple[int, int], num_workers: int) -> NDArray[np.uint8]:
        page = self._pages[level]
        if page is not None:
            self._tiles.check(page, origins, size_px)
        locations = np.rint(origins * self._downsamples[level]).astype(np.int64).tolist()

        def read_one(location: list[int]) -> NDArray[np.uint8]:
            try:
                return on_glass(self._slide.read_region((location[0], location[1]), level, size_px))
            except self._error as error:
                raise RuntimeError(str(error)) from error

        if num_workers > 1 and len(locations) > 1:
            with ThreadPoolExecutor(num_workers) as pool:
                return np.stack(list(pool.map(read_one, locations)))
        return np.stack([read_one(location) for location in locations])

    def properties(self) -> Mapping[str, str]:
        return self._properties

    def close(self) -> None:
        self._slide.close()
        self._tiles.close()


def openslide_vendor(path: Path) -> str | None:
    """OpenSlide's name for the format of a file; None where it knows none, or is not installed."""
    try:
        import openslide
    except (ImportError, OSError):
        return None
    vendor: str | None = openslide.OpenSlide.detect_format(str(path))
    return vendor


def openslide_properties(file: SlideFile) -> Mapping[str, str]:
    """OpenSlide's properties of a file that another library reads; empty where OpenSlide does not read it."""
    if file.vendor is None:
        return {}
    try:
        slide = OpenSlideReader(SlideFile(file.path))
    except RuntimeError:
        return {}
    slide.close()
    return slide.properties()
