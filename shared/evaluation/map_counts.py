"""The one scorer of maps: from map, truth and tissue to counts of pixels, in memory that does not grow with the slide."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.image_dataset import record_error
from ..data.record import Record
from ..data.tissue_cache import TissueCache
from ..inference.cohort.finished import FINISHED
from ..inference.cohort.row_store import TABLE_NAME
from ..inference.inputs import image_name
from ..inference.outputs.map_file import ClassMapFile, MapFile
from ..metrics.classes import confusion_matrix
from ..metrics.ranking import counts_at, roc_auc_of_histograms, score_histograms
from ..writers.table import read_rows
from .report import number, pooled_scores
from .scoring_grid import ScoringGrid, StripTissue, read_truth

PARTS = ("tissue", "all")


@dataclass(frozen=True)
class MapCounts:
    """Counts of the pixels of a map, of each of `PARTS`: in tissue, and with the background.

    Tumour is all that is not class 0. AUCs from these histograms are exact: a map has 256 values.

    Attributes:
        histograms: how often each value 0 to 255 occurs among normal and among tumour pixels, ``(2, 256)``.
        confusions: true class down ``(C, C)``; empty for maps of tumour.
    """

    histograms: dict[str, Tensor]
    confusions: dict[str, Tensor]

    @classmethod
    def pooled(cls, counts: Iterable[MapCounts]) -> MapCounts:
        """The sum over maps."""
        maps = list(counts)
        return cls(
            {part: torch.stack([one.histograms[part] for one in maps]).sum(0) for part in PARTS},
            {part: torch.stack([one.confusions[part] for one in maps]).sum(0) for part in maps[0].confusions},
        )

    def decided(self, part: str, least: int) -> Tensor:
        """Tp, fp, fn, tn, int64 ``(4,)``: tumour is a value of at least `least`; of several classes what is likeliest decides."""
        if self.confusions:
            return tumour_counts(self.confusions[part])
        return counts_at(self.histograms[part], least)

    def auc(self, part: str) -> float | None:
        return number(roc_auc_of_histograms(self.histograms[part]))

    def scores(self, part: str, least: int = 0) -> dict[str, float | None]:
        """The AUC, and `pooled_scores` of what is `decided`."""
        return {"auc": self.auc(part), **pooled_scores(self.decided(part, least))}


class FinishedMap:
    """A finished map, read at some of its pixels; open until the ``with`` statement ends.

    Args:
        path: of the file.
        num_classes: C; 2 for a map of tumour.

    Raises:
        ValueError: if it cannot be read or is a map of other classes.
    """

    def __init__(self, path: Path, num_classes: int = 2) -> None:
        self.file = MapFile(path) if num_classes == 2 else ClassMapFile(path, num_classes)
        self.shape = self.file.shape

    def at(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Probability of tumour 0 to 255 and, of several classes, the likeliest: ``(1, rows, columns)`` or ``(2, ...)``."""
        start, stop = int(rows[0]), int(rows[-1]) + 1
        if isinstance(self.file, MapFile):
            band = self.file.read_rows(start, stop)[None]
        else:
            band = np.stack(self.file.read_decisions(start, stop)[::-1])
        return band[:, (rows - rows[0])[:, None], columns]

    def __enter__(self) -> FinishedMap:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


def count_pixels(grid: ScoringGrid, source: FinishedMap, tissue: StripTissue, with_glass: bool = False) -> MapCounts:
    """Count the pixels of a grid.

    Args:
        grid: with the truth.
        source: the map.
        tissue: of the grid's strips.
        with_glass: what the map says of the background counts too; else the background scores 0, and is of class 0.
    """
    num_classes = grid.num_classes
    histograms = {part: torch.zeros(2, 256, dtype=torch.int64) for part in PARTS}
    sums = {part: torch.zeros(num_classes, num_classes, dtype=torch.int64) for part in PARTS if num_classes > 2}
    for top, height in grid.strips():
        truth, is_tissue = torch.from_numpy(grid.truth(top, height)), torch.from_numpy(tissue(top, height))
        seen = torch.from_numpy(source.at(*grid.map_pixels(top, height, source.shape)))
        if not with_glass:
            seen.masked_fill_(~is_tissue, 0)
        for part, kept in (("tissue", is_tissue), ("all", slice(None))):
            histograms[part] += score_histograms(seen[0][kept], truth[kept] > 0)
            if part in sums:
                sums[part] += confusion_matrix(seen[1][kept], truth[kept], num_classes)
    return MapCounts(histograms, sums)


class MapCounter:
    """Counts the pixels of the maps in a folder that `SlideMapper` has filled.

    Args:
        maps: the folder, with its ``slides.csv``.
        tissue: where the slides' tissue is found.
        class_names: the maps' classes, see `ScoringGrid`; None for maps of tumour.
    """

    def __init__(self, maps: str | Path, tissue: TissueCache, class_names: Sequence[str] | None = None) -> None:
        self.maps, self.tissue, self.class_names = Path(maps), tissue, class_names
        self.table = read_rows(self.maps / TABLE_NAME)

    def status(self, record: Record) -> str:
        """Of a record's map."""
        return str(self.table.get(slide_name(record), {}).get("status", "not begun"))

    def is_finished(self, record: Record) -> bool:
        return self.status(record) in FINISHED

    def row(self, record: Record) -> dict[str, str]:
        """Of the record's image in the table."""
        return self.table[slide_name(record)]

    def open(self, record: Record) -> FinishedMap:
        num_classes = 2 if self.class_names is None else len(self.class_names)
        return FinishedMap(self.maps / f"{slide_name(record)}.ome.tif", num_classes)

    def grid(self, record: Record, source: FinishedMap) -> ScoringGrid:
        """The pixels of a slide's map."""
        return ScoringGrid.of_map(record, self.row(record), source.shape, self.class_names)

    def count(self, record: Record) -> MapCounts:
        """The pixels of a slide's map.

        Raises:
            ValueError: naming manifest, row and file of a mask, a map or a slide that cannot be read.
        """
        try:
            with self.open(record) as source:
                grid = self.grid(record, source)
                return count_pixels(grid, source, grid.slide_tissue(self.tissue))
        except (ValueError, OSError) as error:
            raise record_error(record, error) from error


def check_mask(record: Record, image_size_px: tuple[int, int], class_names: Sequence[str] | None = None) -> None:
    """Open a record's mask, so that a wrong one is found before hours of work.

    Raises:
        ValueError: naming manifest, row and file.
    """
    try:
        read_truth(record, (0, 0), (1, 1), image_size_px, 1.0, class_names)
    except (ValueError, OSError) as error:
        raise record_error(record, error) from error


def has_truth(record: Record) -> bool:
    """Whether a record's pixels can be scored."""
    return record.get("mask") is not None or record["label"] == 0


def slide_name(record: Record) -> str:
    """By which the maps' folder calls a slide."""
    return image_name(Path(record["image"]))


def least_value(threshold: float) -> int:
    """The smallest value of a map, 0 to 255, that is at least a probability.

    >>> least_value(0.5), least_value(0.2), least_value(1.0)
    (128, 51, 255)
    """
    return math.ceil(255 * threshold - 1e-9)


def tumour_counts(confusion: Tensor) -> Tensor:
    """Tp, fp, fn, tn of "not class 0", ``(4,)``, from a confusion matrix, true class down.

    >>> tumour_counts(torch.tensor([[5, 1, 0], [2, 3, 1], [0, 1, 4]]))
    tensor([9, 1, 2, 5])
    """
    return torch.stack([confusion[1:, 1:].sum(), confusion[0, 1:].sum(), confusion[1:, 0].sum(), confusion[0, 0]])
