"""Finished maps beside the truth and the tissue of their slides, strip by strip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..data.image_dataset import record_error
from ..data.record import Record
from ..data.record_masks import read_record_mask
from ..data.tissue_cache import TissueCache
from ..inference.cohort.finished import FINISHED
from ..inference.cohort.row_store import TABLE_NAME
from ..inference.inputs import image_name
from ..writers.table import read_rows
from ..wsi.annotations.annotation_file import is_annotation_file

# Pixels held at once: level-0 pixels of a mask, and pixels of a map.
_STRIP_AREA_PX, _STRIP_MAP_PX = 2**25, 2**22


class MapCohort:
    """The slides of a manifest that can be scored: those with a finished map in a folder, and with a mask or label 0.

    Args:
        maps: folder that `SlideMapper` has filled, with its ``slides.csv``.
        records: of whole slides, see `load_manifest`. Those with neither a mask nor label 0 are left out.
        tissue: where the slides' tissue is found.
        class_names: the maps' classes, background first, by which annotation files call them too; mask images hold their
            indices. None for maps of tumour: of a mask all that is not 0 is tumour, and everything annotated.
        allow_missing: leave out slides that have no finished map; they are an error otherwise.

    Attributes:
        records: what is left to score.
        num_missing: slides that were left out for want of a map.
        num_without_truth: slides that were left out for want of a mask.

    Raises:
        ValueError: for rows that are no whole slides, maps that are missing, and where nothing is left to score.
    """

    def __init__(
        self,
        maps: str | Path,
        records: Sequence[Record],
        tissue: TissueCache,
        class_names: Sequence[str] | None = None,
        allow_missing: bool = False,
    ) -> None:
        self.maps, self.tissue, self.class_names = Path(maps), tissue, class_names
        for record in records:
            if record.get("x") is not None:
                raise record_error(record, ValueError("maps are scored as a whole, and this row is a region of a slide"))
        with_truth = [record for record in records if record.get("mask") is not None or record["label"] == 0]
        self.num_without_truth = len(records) - len(with_truth)
        table = read_rows(self.maps / TABLE_NAME)
        self._row_of = {name: row for name, row in table.items() if row["status"] in FINISHED}
        self.records = [record for record in with_truth if slide_name(record) in self._row_of]
        missing = [record for record in with_truth if slide_name(record) not in self._row_of]
        if missing and not allow_missing:
            status = table.get(slide_name(missing[0]), {}).get("status", "not begun")
            raise ValueError(
                f"{len(missing)} of {len(with_truth)} slides have no finished map in {self.maps}, the first is "
                f"{missing[0]['image']} ({status}): map them, or leave them out by --allow_missing"
            )
        self.num_missing = len(missing)
        if not self.records:
            raise ValueError(f"nothing to score: no slide has both a map in {self.maps} and a mask or label 0")

    def check_masks(self) -> None:
        """Open every mask, so that a wrong one is found before hours of scoring.

        Raises:
            ValueError: naming manifest, row and file.
        """
        for record in tqdm(self.records, "checking masks", unit="slide", disable=None, leave=False):
            try:
                self._read_truth(record, (0, 0), (1, 1), 1.0)
            except (ValueError, OSError) as error:
                raise record_error(record, error) from error

    def path(self, record: Record) -> Path:
        """Of a slide's map."""
        return self.maps / f"{slide_name(record)}.ome.tif"

    def map_mpp(self, record: Record) -> float:
        """Micrometres per pixel of a slide's map."""
        return float(self._row_of[slide_name(record)]["map_mpp"])

    def pixel_px(self, record: Record) -> float:
        """Level-0 pixels per map pixel: the map file's own resolution is rounded."""
        return self.map_mpp(record) / float(self._row_of[slide_name(record)]["mpp"])

    def strips(self, record: Record, shape: tuple[int, int]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """First row, truth (uint8) and tissue (bool), both ``(h, W)``, of the strips of a slide's map ``(H, W)``."""
        pixel_px = self.pixel_px(record)
        # With the pixel size that it was mapped with: the file may have none.
        tissue = self.tissue.get(record["image"], float(self._row_of[slide_name(record)]["mpp"]))
        scale = pixel_px / tissue.pixel_px
        columns = nearest_pixels(0, shape[1], scale, tissue.mask.shape[1])
        for top, truth in self.truth(record, shape, pixel_px):
            rows = nearest_pixels(top, len(truth), scale, tissue.mask.shape[0])
            yield top, truth, tissue.mask[np.ix_(rows, columns)]

    def truth(self, record: Record, shape: tuple[int, int], pixel_px: float) -> Iterator[tuple[int, np.ndarray]]:
        """First row and class indices, uint8, of strips of a grid ``(H, W)`` whose pixels are `pixel_px` level-0 pixels wide."""
        height = max(1, int(min(_STRIP_AREA_PX / pixel_px**2, _STRIP_MAP_PX) / shape[1]))
        for top in range(0, shape[0], height):
            size_px = (shape[1], min(height, shape[0] - top))
            yield top, self._read_truth(record, (0, round(top * pixel_px)), size_px, pixel_px)

    def _read_truth(self, record: Record, xy: tuple[int, int], size_px: tuple[int, int], pixel_px: float) -> np.ndarray:
        """Class indices ``(height, width)`` of a region, see `read_record_mask`."""
        mask = record.get("mask")
        if mask is None:
            return np.zeros(size_px[::-1], np.uint8)
        row, names = self._row_of[slide_name(record)], self.class_names
        slide_px = (int(row["width_px"]), int(row["height_px"]))
        num_classes = 2 if names is None else len(names)
        try:
            return read_record_mask(record, xy, size_px, slide_px, pixel_px, num_classes, names)
        except ValueError as error:
            # Of an annotation file the error names the classes itself.
            if names is None or is_annotation_file(mask):
                raise
            indices = ", ".join(f"{index} {name}" for index, name in enumerate(names))
            raise ValueError(f"{error}; the maps have the classes {indices}") from error


def slide_name(record: Record) -> str:
    """By which the maps' folder calls a slide."""
    return image_name(Path(record["image"]))


def nearest_pixels(start: int, count: int, scale: float, limit: int) -> np.ndarray:
    """Indices on a grid of `limit` pixels of the middles of `count` pixels from `start` on, `scale` of its pixels wide each."""
    return np.minimum(((np.arange(start, start + count) + 0.5) * scale).astype(np.int64), limit - 1)
