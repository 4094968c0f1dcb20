"""Where a finished map is compared with the truth: a grid of square pixels over an image, strip by strip."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...data.record import Record, region_of
from ...data.record_masks import read_record_mask
from ...data.tissue_cache import TissueCache
from ...wsi.annotations.annotation_file import is_annotation_file

# From the first row and the height of a strip to where there is tissue in it, ``(height, W)``.
StripTissue = Callable[[int, int], NDArray[np.bool_]]


class RowsOfDecisions(Protocol):
    """A map that is read by rows, such as a `MapFile`; it has the whole image's (H, W)."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def read_decisions(self, start: int, stop: int) -> NDArray[np.uint8]: ...


# Pixels held at once: level-0 pixels of a mask, and pixels of the grid.
_STRIP_AREA_PX, _STRIP_GRID_PX = 2**25, 2**22


@dataclass(frozen=True)
class ScoringGrid:
    """The pixels at which an image, or a region of a slide, is scored.

    Attributes:
        record: of the manifest.
        row: of the image in the table of the maps: its size, its pixel size when it was mapped (the file may have none), and the
            map's (the map file's own is rounded).
        pixel_px: level-0 pixels per pixel of the grid.
        shape: (H, W) of the grid.
        class_names: the maps' classes, background first, by which annotation files call them too; mask images hold their
            indices. None for maps of tumour: of a mask all that is not 0 is tumour, and everything annotated.
    """

    record: Record
    row: Mapping[str, str]
    pixel_px: float
    shape: tuple[int, int]
    class_names: Sequence[str] | None = None

    @classmethod
    def of_map(
        cls, record: Record, row: Mapping[str, str], shape: tuple[int, int], class_names: Sequence[str] | None = None
    ) -> ScoringGrid:
        """The pixels of a whole image's map, which has this shape."""
        return cls(record, row, float(row["map_mpp"]) / float(row["mpp"]), shape, class_names)

    @classmethod
    def of_mpp(cls, record: Record, row: Mapping[str, str], mpp: float, class_names: Sequence[str] | None = None) -> ScoringGrid:
        """Pixels of `mpp` micrometres over an image or a region."""
        pixel_px = mpp / float(row["mpp"])
        width, height = region_of(record, _size_px(row))[2:]
        return cls(record, row, pixel_px, (max(1, round(height / pixel_px)), max(1, round(width / pixel_px))), class_names)

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
        corner, size_px = (self.origin[0], round(self.origin[1] + top * self.pixel_px)), (self.shape[1], height)
        return read_truth(self.record, corner, size_px, _size_px(self.row), self.pixel_px, self.class_names)

    def decisions(self, source: RowsOfDecisions | None, top: int, height: int) -> NDArray[np.uint8]:
        """What a map says below the middles of a strip's pixels: `MapFile.read_decisions`, ``(1 or 2, height, W)``."""
        if source is None:
            raise ValueError("a grid needs at least one map")
        map_pixel_px, (x, y) = float(self.row["map_mpp"]) / float(self.row["mpp"]), self.origin
        places = []
        for start, first, count, limit in ((y, top, height, source.shape[0]), (x, 0, self.shape[1], source.shape[1])):
            middles = (start + (np.arange(first, first + count) + 0.5) * self.pixel_px) / map_pixel_px
            places.append(np.minimum(middles.astype(np.int64), limit - 1))
        rows, columns = places
        return source.read_decisions(int(rows[0]), int(rows[-1]) + 1)[:, (rows - rows[0])[:, None], columns]

    def slide_tissue(self, cache: TissueCache) -> StripTissue:
        """Tissue of a whole slide, as it was found on it."""
        found = cache.get(self.record["image"], float(self.row["mpp"]))

        def pixels(start: int, count: int, limit: int) -> NDArray[np.int64]:
            middles = (np.arange(start, start + count) + 0.5) * (self.pixel_px / found.pixel_px)
            return np.minimum(middles.astype(np.int64), limit - 1)

        columns = pixels(0, self.shape[1], found.mask.shape[1])
        return lambda top, height: found.mask[np.ix_(pixels(top, height, found.mask.shape[0]), columns)]


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


def _size_px(row: Mapping[str, str]) -> tuple[int, int]:
    """(width, height) of level 0."""
    return int(row["width_px"]), int(row["height_px"])
