"""Where a finished map is compared with the truth: a grid of square pixels over an image, strip by strip."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.record import Record, region_of
from ..data.record_masks import read_record_mask
from ..data.tissue_cache import TissueCache
from ..wsi.annotations.annotation_file import is_annotation_file

# From the first row and the height of a strip to where there is tissue in it, ``(height, W)``.
StripTissue = Callable[[int, int], NDArray[np.bool_]]

# Pixels held at once: level-0 pixels of a mask, and pixels of the grid.
_STRIP_AREA_PX, _STRIP_GRID_PX = 2**25, 2**22


@dataclass(frozen=True)
class ScoringGrid:
    """The pixels at which an image, or a region of a slide, is scored.

    Attributes:
        record: of the manifest.
        slide_size_px: (width, height) of level 0.
        slide_mpp: micrometres per level-0 pixel, with which the image was mapped: its file may not say.
        map_pixel_px: level-0 pixels per pixel of the map; the map file's own resolution is rounded.
        pixel_px: level-0 pixels per pixel of the grid.
        shape: (H, W) of the grid.
        class_names: background first, by which annotation files call them too; mask images hold their indices. None for tumour:
            of a mask all that is not 0 is tumour, and everything annotated.
    """

    record: Record
    slide_size_px: tuple[int, int]
    slide_mpp: float
    map_pixel_px: float
    pixel_px: float
    shape: tuple[int, int]
    class_names: Sequence[str] | None = None

    @classmethod
    def of_map(
        cls, record: Record, row: Mapping[str, str], shape: tuple[int, int], class_names: Sequence[str] | None = None
    ) -> ScoringGrid:
        """The pixels of the map itself, ``shape``, of a whole image; `row` is that of the image in the table of the maps."""
        size_px, mpp, map_pixel_px = _scale_of(row)
        return cls(record, size_px, mpp, map_pixel_px, map_pixel_px, shape, class_names)

    @classmethod
    def of_mpp(cls, record: Record, row: Mapping[str, str], mpp: float, class_names: Sequence[str] | None = None) -> ScoringGrid:
        """Pixels of `mpp` micrometres over an image or a region; `row` is that of the image in the table of the maps."""
        size_px, slide_mpp, map_pixel_px = _scale_of(row)
        pixel_px = mpp / slide_mpp
        width, height = region_of(record, size_px)[2:]
        shape = (max(1, round(height / pixel_px)), max(1, round(width / pixel_px)))
        return cls(record, size_px, slide_mpp, map_pixel_px, pixel_px, shape, class_names)

    @property
    def num_classes(self) -> int:
        return 2 if self.class_names is None else len(self.class_names)

    @property
    def origin(self) -> tuple[int, int]:
        """(x, y) of the grid's corner in level 0."""
        return self.record.get("x") or 0, self.record.get("y") or 0

    def strips(self) -> Iterator[tuple[int, int]]:
        """First row and height of strips that memory can hold."""
        height = max(1, int(min(_STRIP_AREA_PX / self.pixel_px**2, _STRIP_GRID_PX) / self.shape[1]))
        yield from ((top, min(height, self.shape[0] - top)) for top in range(0, self.shape[0], height))

    def truth(self, top: int, height: int) -> NDArray[np.uint8]:
        """Class indices ``(height, W)`` of a strip; 0 where the record has no mask.

        Raises:
            ValueError: as `read_truth`.
        """
        corner = (self.origin[0], round(self.origin[1] + top * self.pixel_px))
        return read_truth(self.record, corner, (self.shape[1], height), self.slide_size_px, self.pixel_px, self.class_names)

    def map_pixels(self, top: int, height: int, shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of the map, which has this shape, below the middles of a strip's pixels."""
        places = []
        for start, first, count, limit in (
            (self.origin[1], top, height, shape[0]),
            (self.origin[0], 0, self.shape[1], shape[1]),
        ):
            middles = (start + (np.arange(first, first + count) + 0.5) * self.pixel_px) / self.map_pixel_px
            places.append(np.minimum(middles.astype(np.int64), limit - 1))
        return places[0], places[1]

    def slide_tissue(self, cache: TissueCache) -> StripTissue:
        """Tissue of a whole slide, as it was found on it."""
        found = cache.get(self.record["image"], self.slide_mpp)
        scale = self.pixel_px / found.pixel_px
        columns = nearest_pixels(0, self.shape[1], scale, found.mask.shape[1])

        def strip(top: int, height: int) -> NDArray[np.bool_]:
            return found.mask[np.ix_(nearest_pixels(top, height, scale, found.mask.shape[0]), columns)]

        return strip


def read_truth(
    record: Record,
    xy: tuple[int, int],
    size_px: tuple[int, int],
    image_size_px: tuple[int, int],
    pixel_px: float = 1.0,
    class_names: Sequence[str] | None = None,
) -> NDArray[np.uint8]:
    """Class indices ``(height, width)`` of a region, see `read_record_mask`; 0 where the record has no mask.

    Raises:
        ValueError: as `read_record_mask`, naming the classes where there are several.
    """
    file = record.get("mask")
    if file is None:
        return np.zeros(size_px[::-1], np.uint8)
    num_classes = 2 if class_names is None else len(class_names)
    try:
        return read_record_mask(record, xy, size_px, image_size_px, pixel_px, num_classes, class_names)
    except ValueError as error:
        # Of an annotation file the error names the classes itself.
        if class_names is None or is_annotation_file(file):
            raise
        indices = ", ".join(f"{index} {name}" for index, name in enumerate(class_names))
        raise ValueError(f"{error}; the maps have the classes {indices}") from error


def nearest_pixels(start: int, count: int, scale: float, limit: int) -> NDArray[np.int64]:
    """Indices on a grid of `limit` pixels of the middles of `count` pixels from `start` on, `scale` of its pixels wide each."""
    return np.minimum(((np.arange(start, start + count) + 0.5) * scale).astype(np.int64), limit - 1)


def _scale_of(row: Mapping[str, str]) -> tuple[tuple[int, int], float, float]:
    """(width, height) of level 0, its micrometres per pixel, and level-0 pixels per pixel of the map."""
    mpp = float(row["mpp"])
    return (int(row["width_px"]), int(row["height_px"])), mpp, float(row["map_mpp"]) / mpp
